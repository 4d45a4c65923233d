"""`fivefold export …`: a signed study for another platform's runner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Write a study for another platform to carry.")

Signed = Annotated[
    Path, typer.Argument(help="The signed study, or STUDY.yaml with it beside it.", metavar="STUDY", show_default=False)
]


@app.callback()
def export() -> None:
    """Write a study for another platform to carry."""


@app.command()
def flare(
    study: Signed,
    folder: Annotated[
        Path, typer.Argument(help="Where the job is to be; an empty folder or a new one.", metavar="DIR", show_default=False)
    ],
    deadline: Annotated[
        int, typer.Option(help="Seconds after which a site that is silent is left out of a trip.", min=1)
    ] = 600,
) -> None:
    """Write an NVIDIA FLARE job folder; no nvflare is needed. It holds the signed study and names of classes, and no code."""
    from fivefold.engines.flare.job import CLASSES, write_job
    from fivefold.study.digest import load_signed, signed_file

    found = load_signed(signed_file(study))
    write_job(found, folder, deadline=deadline)
    typer.echo(f"Job folder: {folder}")
    typer.echo(f"Sites that FLARE must know as clients: {', '.join(s.name for s in found.study.sites)}")
    typer.echo("Every party's local/resources.json has to admit these classes, and needs to admit no other:")
    for name in CLASSES:
        typer.echo(f"  {name}")


@app.command()
def substra(
    study: Signed,
    folder: Annotated[
        Path, typer.Argument(help="Where the plan is to be; an empty folder or a new one.", metavar="DIR", show_default=False)
    ],
    rounds: Annotated[
        int | None, typer.Option(help="Rounds to draw, where the study's upper bound is far too many.", min=1)
    ] = None,
) -> None:
    """Write a folder from which substrafl draws a compute plan. No secure sum there: sites must permit their totals."""
    from fivefold.engines.substra.export import write_plan
    from fivefold.study.digest import load_signed, signed_file

    found = load_signed(signed_file(study))
    most = write_plan(found, folder, rounds=rounds)
    typer.echo(f"Plan: {folder}, {most} rounds at most, {len(found.study.sites)} sites")
