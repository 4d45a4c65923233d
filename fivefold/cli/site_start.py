"""`fivefold site start` and `fivefold site connection`: the site's process, and the key with which it connects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fivefold.cli.arguments import HERE, Where


def start(
    superlink: Annotated[str, typer.Option(help="The coordinator's address.", metavar="HOST:PORT", show_default=False)],
    root_certificates: Annotated[
        Path, typer.Option(help="The coordinator's certificate, its ca.pem.", metavar="FILE", show_default=False)
    ],
    folder: Where = HERE,
) -> None:
    """Answer approved studies over a SuperLink. Runs until it is stopped; only this process connects, and only outwards."""
    from fivefold.engines.flower.site import start as run

    run(folder, superlink, root_certificates, tell=lambda line: typer.echo(line, err=True))


def app(
    folder: Annotated[
        Path, typer.Argument(help="The app's folder, with its pyproject.toml.", metavar="FOLDER", show_default=False)
    ],
) -> None:
    """Show the digest of a Flower app that is to run here, as studies name it."""
    from fivefold.engines.flower.foreign_app import digest_of, files_of
    from fivefold.errors import SourceNotFound

    files = files_of(folder)
    if "pyproject.toml" not in files:
        raise SourceNotFound(f"there is no Flower app in {folder}: it has no pyproject.toml", help="Name the app's own folder.")
    typer.echo(f"app     {folder.resolve().name}   {len(files)} files\ndigest  {digest_of(files)}")


def connection(
    folder: Where = HERE,
) -> None:
    """Show the public half of the site's connection key; makes one where there is none."""
    from fivefold.engines.flower.certificates import make_connection_key
    from fivefold.site.folder import opened

    typer.echo(make_connection_key(opened(folder).keys), nl=False)
