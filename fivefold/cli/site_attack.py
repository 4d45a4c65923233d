"""`fivefold site attack`: a site plays a membership attack on a model with its own persons, and signs a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Where = Annotated[Path, typer.Option("--site", envvar="FIVEFOLD_SITE", help="The site's folder.", metavar="DIR")]


def attack(
    study: Annotated[Path, typer.Argument(help="The signed study.", metavar="STUDY", show_default=False)],
    model: Annotated[
        Path, typer.Argument(help="The model: a file of `outputs attack --to`.", metavar="MODEL", show_default=False)
    ],
    site: Where = Path("."),
    out: Annotated[
        Path | None, typer.Option(help="Where to write the signed verdict; none is written if left out.", metavar="FILE")
    ] = None,
) -> None:
    """Attack a trained model with this site's own persons. The figures stay here; the verdict holds none."""
    from fivefold.disclosure.memorisation import MARGIN
    from fivefold.governance.statements import store
    from fivefold.site.attack import attack as played
    from fivefold.site.folder import opened
    from fivefold.study.digest import load_signed, read_bytes

    done = played(opened(site), load_signed(study), read_bytes(model))
    typer.echo(f"model {done.verdict.model[:16]}… of {done.verdict.analysis}: {done.verdict.said}")
    typer.echo(f"  tried on {done.members} members and {done.others} persons held out (these figures stay here)")
    for p in done.powers:
        won = f"succeeds: above {MARGIN:.2f}" if p.succeeds else "no success"
        typer.echo(f"  attack by {p.attack:<6}  area {p.auc:.3f} ({p.low:.3f} to {p.high:.3f}; 0.5 is chance), {won}")
    typer.echo(f"  rules {', '.join(done.verdict.rules) or 'none'}")
    if out is not None:
        store(out, done.raw, mode=0o644)
        typer.echo(f"verdict for the output checkers: {out}")
