"""`fivefold site usage`: what each run used of the site's machine."""

from __future__ import annotations

from typing import Annotated

import typer

from fivefold.cli.arguments import HERE, Where


def usage(
    folder: Where = HERE,
    json: Annotated[bool, typer.Option("--json", help="Print the values as JSON.")] = False,
) -> None:
    """Show what each run used here: trips, bytes received and sent, processor seconds. For the site's own staff."""
    from dataclasses import asdict

    from fivefold.site.folder import opened
    from fivefold.site.usage import runs_of

    here = opened(folder)
    found = list(runs_of(here))
    if json:
        import json as text

        values = [
            {"run": one.run, "study": one.study, "title": one.title, "closed": one.closed} | asdict(one.usage) for one in found
        ]
        typer.echo(text.dumps(values, indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo("no run was opened at this site yet")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.add_column("study", overflow="fold")
    grid.add_column("run", overflow="fold", min_width=8)
    for heading in ("trips", "bytes\nreceived", "bytes\nsent", "processor\nseconds"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("first – last", no_wrap=True)
    for one in found:
        used = one.usage
        days = " – ".join(dict.fromkeys((used.first[:10], used.last[:10])))
        name = escape(one.title or one.study[:16] + "…")
        state = "" if one.closed else " (open)"
        numbers = (f"{used.trips:,}", f"{used.received:,}", f"{used.sent:,}", f"{used.seconds:,.1f}")
        grid.add_row(name, escape(one.run[:12]) + state, *numbers, days)
    Console().print(grid)
    typer.echo("Processor seconds are those of the node's process and of the children that it waited for.")
