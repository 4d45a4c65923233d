"""A study's life, drawn: a line for each site, and below it every act with who, when, why and on which digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fivefold.governance.life import Act, Life

INK = {
    "approved": "green", "running": "bold green", "outputs held": "yellow", "released": "bold green", "closed": "dim",
    "refused": "bold red", "withdrawn": "bold red", "expired": "red",
}  # fmt: skip


def draw(lives: Mapping[str, Life]) -> None:
    """Print each site's life."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for life in lives.values():
        console.print(Text.assemble((life.site, "bold"), "  ", (life.state, INK.get(life.state, ""))))
        grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 1), show_edge=False)
        for heading in ("when", "what", "state", "who", "why", "study", "proof"):
            grid.add_column(heading, overflow="fold", no_wrap=heading in ("when", "what", "state"))
        for act, state in steps(life):
            grid.add_row(*map(Text, _row(act, state)))
        for act, rule in life.void:
            grid.add_row(*map(Text, _row(act, f"no: {rule}")), style="red")
        console.print(grid)


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
