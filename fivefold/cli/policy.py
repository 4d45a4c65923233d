"""`fivefold policy test`: what a site's policy will say to a study, before anyone waits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fivefold.cli.arguments import HERE, Where

if TYPE_CHECKING:
    from fivefold.site.foretold import Foretold

app = typer.Typer(help="Ask a site's own policy (site.yaml).", no_args_is_help=True, add_completion=False)


@app.callback()
def policy() -> None:
    """Ask a site's own policy (site.yaml), which no coordinator sets or sees."""


@app.command("test")
def ask(
    study: Annotated[Path, typer.Argument(help="The study, signed or not.", metavar="STUDY", show_default=False)],
    site: Where = HERE,
    engine: Annotated[
        str | None, typer.Option(help="The engine that would carry it: local, flower, flare, substra.", metavar="NAME")
    ] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Print only what is denied.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Each decision on the way through a study: permit or deny, the rule and its line. No row is read, nothing is kept.
    Exit code 32 where anything is denied."""
    import json
    from dataclasses import asdict
    from datetime import UTC, datetime

    from fivefold.errors import PolicyRefuses
    from fivefold.governance.safe_settings import SURROUNDINGS
    from fivefold.site.folder import opened
    from fivefold.site.foretold import foretold
    from fivefold.study.digest import digest, load_signed
    from fivefold.study.yaml import load

    if engine is not None and engine not in SURROUNDINGS:
        raise typer.BadParameter(f"name one of {', '.join(SURROUNDINGS)}", param_hint="--engine")
    here, found = opened(site), load_signed(study).study if study.suffix == ".json" else load(study)
    around = SURROUNDINGS[engine] if engine is not None else None
    said = list(foretold(here, found, digest(found), datetime.now(UTC), around=around))
    no = sum(not one.decision.permit for one in said)
    if as_json:
        values = [{"about": one.about} | asdict(one.decision) for one in said]
        typer.echo(json.dumps({"permitted": not no, "decisions": values}, ensure_ascii=False, indent=2))
    else:
        _draw([one for one in said if not (denied and one.decision.permit)])
        typer.echo(f"{len(said)} decisions, {no} denied" + ("" if no else ": this site would answer the study"))
    raise typer.Exit(PolicyRefuses.exit_code if no else 0)


def _draw(said: list[Foretold]) -> None:
    for one in said:
        decision = one.decision
        where = f"line {decision.line}" if decision.line else "by default"
        typer.echo(f"{'permit' if decision.permit else 'DENY  '}  {one.about}: {decision.sentence}")
        typer.echo(f"        rule {decision.rule}, {where}" + (f"; {decision.evidence}" if decision.evidence else ""))
