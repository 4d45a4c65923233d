"""`fivefold site attack`: a site plays a membership attack on a model with its own persons, for its custodian's eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fivefold.cli.arguments import HERE, Where


def attack(
    study: Annotated[Path, typer.Argument(help="The signed study.", metavar="STUDY", show_default=False)],
    model: Annotated[
        Path, typer.Argument(help="The model: a safetensors file of `model export`.", metavar="MODEL", show_default=False)
    ],
    site: Where = HERE,
) -> None:
    """Attack a trained model with this site's own persons, as this site does before a release. The figures stay here."""
    from fivefold.disclosure.memorisation import CLEAR, SURE
    from fivefold.protocol.objections import MEMBERSHIP
    from fivefold.site.folder import opened
    from fivefold.site.memorisation import attack as played
    from fivefold.study.digest import load_signed, read_bytes

    done = played(opened(site), load_signed(study), read_bytes(model))
    typer.echo(f"{done.analysis}: this site {'objects' if MEMBERSHIP in done.rules else 'does not object'} to its release")
    typer.echo(f"  tried on {done.members} members and {done.others} persons held out (these figures stay here)")
    for p in done.powers:
        won = "succeeds" if p.succeeds else "no success"
        typer.echo(f"  attack by {p.attack:<6}  area {p.auc:.3f} ({p.low:.3f} to {p.high:.3f}; 0.5 is chance), {won}")
    typer.echo(f"  an attack succeeds surely above {SURE:.2f}, or above {CLEAR:.2f} and surely above chance")
    typer.echo(f"  rules {', '.join(done.rules) or 'none'}")
