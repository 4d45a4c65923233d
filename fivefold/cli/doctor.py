"""`fivefold doctor`: is this site ready for the day? One line for each thing that a run needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fivefold.cli.arguments import HERE, Where

app = typer.Typer(add_completion=False)
MARKS = {"ok": "[green]✓[/] ok", "warning": "[yellow]! warning[/]", "fault": "[red]✗ fault[/]"}


@app.command()
def doctor(
    site: Where = HERE,
    study: Annotated[
        Path | None, typer.Option(help="A study, signed or not: data are read, and it is played.", metavar="FILE")
    ] = None,
    superlink: Annotated[str | None, typer.Option(help="The coordinator's address.", metavar="HOST:PORT")] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="The coordinator's certificate, its ca.pem.", metavar="FILE")
    ] = None,
    flare: Annotated[
        Path | None, typer.Option(help="The folder of FLARE's client: may a job bring code here?", metavar="DIR")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a site before the day. Nothing is sent but a TLS greeting; exit code 1 where there is a fault."""
    import json
    from dataclasses import asdict
    from datetime import UTC, datetime

    from fivefold.site.doctor import examined
    from fivefold.site.folder import opened
    from fivefold.study.digest import load_signed
    from fivefold.study.yaml import load

    if (superlink is None) != (root_certificates is None):
        raise typer.BadParameter("give both or neither", param_hint="--superlink and --root-certificates")
    folder, when = opened(site), datetime.now(UTC)
    found = None if study is None else load_signed(study) if study.suffix == ".json" else load(study)
    checks = list(examined(folder, found, when))
    if superlink is not None and root_certificates is not None:
        from fivefold.engines.reachability import way_out

        checks += way_out(folder, superlink, root_certificates, when)
    if flare is not None:
        from fivefold.engines.flare.workspace import examined as looked_at

        checks += looked_at(flare)
    faults = sum(c.state == "fault" for c in checks)
    if as_json:
        typer.echo(json.dumps({"ready": not faults, "checks": [asdict(c) for c in checks]}, ensure_ascii=False))
    else:
        _draw(checks)
        warnings = sum(c.state == "warning" for c in checks)
        counts = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((faults, "fault"), (warnings, "warning")))
        typer.echo(f"{counts}: " + ("not ready" if faults else "ready"))
    raise typer.Exit(1 if faults else 0)


def _draw(checks: list[Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("checked", "state", "found", "next step"):
        grid.add_column(heading, overflow="fold")
    for check in checks:
        grid.add_row(escape(check.name), MARKS[check.state], escape(check.said), escape(check.next))
    Console().print(grid)
