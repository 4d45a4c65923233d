"""A study's life, drawn: a line for each site, and below it every act with who, when, why and on which digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fivefold.governance.life import Act, Life

INK = {
    "approved": "green", "running": "bold green", "outputs held": "yellow", "released": "bold green", "closed": "dim",
    "refused": "bold red", "withdrawn": "bold red", "expired": "red",
}  # fmt: skip
NO = "no: "
WIDE = 120
"""Columns of a terminal that a table of seven needs; on a narrower one each act has lines of its own."""


def draw(lives: Mapping[str, Life]) -> None:
    """Print each site's life."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for life in lives.values():
        console.print(Text.assemble((life.site, "bold"), "  ", (life.state, INK.get(life.state, ""))))
        rows = [_row(act, state) for act, state in steps(life)] + list(_refused(life))
        if console.width < WIDE:
            for when, what, state, who, why, study, proof in rows:
                console.print(Text(f" {when}  {what} → {state}"), style=_style(state))
                for line in (who, why, f"study {study}, proof {proof or 'none'}"):
                    console.print(Padding(Text(line), (0, 0, 0, 6), expand=False))
            continue
        grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 1), show_edge=False)
        for heading in ("when", "what", "state", "who", "why", "study", "proof"):
            grid.add_column(heading, overflow="fold", no_wrap=heading in ("when", "what", "state"))
        for row in rows:
            grid.add_row(*map(Text, row), style=_style(row[2]))
        console.print(grid)


def _style(state: str) -> str:
    return "red" if state.startswith(NO) else ""


def _refused(life: Life) -> Iterator[tuple[str, ...]]:
    """What did not count, with its rule; the same again and again in one row, by its last."""
    for _, same in groupby(life.void, key=lambda one: (one[0].what, one[0].key, one[0].why, one[1])):
        *before, (act, rule) = same
        when, what, state, who, why, *rest = _row(act, f"{NO}{rule}")
        yield when, what, state, who, f"{why} ({len(before) + 1} times)" if before else why, *rest


def plain(life: Life) -> dict[str, Any]:
    """The same as JSON values."""
    from dataclasses import asdict

    return {
        "site": life.site, "study": life.study, "state": life.state, "until": life.until,
        "acts": [asdict(act) | {"state": state} for act, state in steps(life)],
        "refused": [asdict(act) | {"rule": rule} for act, rule in life.void],
    }  # fmt: skip


def steps(life: Life) -> list[tuple[Act, str]]:
    """Each act with the state that it led to."""
    from fivefold.governance.life import State, after

    state: State = "draft"
    out: list[tuple[Act, str]] = []
    for act in life.acts:
        state = after(state, act.what)
        out.append((act, state))
    return out


def _row(act: Act, state: str) -> tuple[str, ...]:
    when = act.at[:19].replace("T", " ") if act.at else "not written down"
    key = f" ({act.key[:8]}…)" if act.key else ""
    return when, act.what, state, f"{act.role}: {act.who}{key}" if act.who else act.role, act.why, act.study[:8], act.proof[:8]
