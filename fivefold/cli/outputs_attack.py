"""`fivefold outputs attack`: the sites attack the models of a request before anybody lets them go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def attack(
    run: Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN", show_default=False)],
    number: Annotated[int, typer.Argument(help="The request's number, as `list` shows it.", metavar="N", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="Your own private key.", metavar="FILE", show_default=False)],
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="Where the site folders are; beside the study by default.", metavar="DIR"),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write each model as a file into this folder, for sites on other machines.", metavar="DIR"),
    ] = None,
    verdict: Annotated[
        list[Path] | None, typer.Option(help="A verdict of a site on another machine, again and again.", metavar="FILE")
    ] = None,
) -> None:
    """Have each site attack the request's models with its own persons; only signed verdicts come back. For a checker."""
    from fivefold.cli.keys import open_key
    from fivefold.cli.outputs_sites import attacked
    from fivefold.coordinator import airlock
    from fivefold.errors import ModelNotExported
    from fivefold.governance.safe_outputs import standing_of
    from fivefold.governance.statements import store
    from fivefold.study.digest import read_bytes

    it = airlock.airlock(run)
    held = airlock.opened(it, open_key(key))
    asked = standing_of(it.chain, it.study.study, it.checkers(), number).request
    for path in verdict or ():
        said = airlock.take_verdict(it, read_bytes(path))
        typer.echo(f"verdict on {said.analysis} taken")
    made = {n: airlock.model_of(it, held, n) for n in asked.analyses if n in held.results}
    models = {n: m for n, m in made.items() if m is not None}
    if not models:
        raise ModelNotExported(f"request {number} has no trained model that a site could attack")
    for name, model in models.items():
        if to is not None:
            place = to / f"{name}.safetensors"
            store(place, model)
            typer.echo(f"{place}: each site gives `fivefold site attack STUDY {place.name} --out FILE`")
        if verdict or to is not None:
            continue
        said_of = attacked(it, model, sites)
        if not said_of:
            typer.echo(f"{name}: no site on this machine attacked it; --to writes the model for sites elsewhere")
            continue
        counts = ", ".join(f"{said_of.count(w)} {w}" for w in ("pass", "concern", "untested"))
        typer.echo(f"{name}: {counts}, of {len(it.study.study.sites)} sites")
