"""`fivefold coordinator`: the side without rows, where it is a machine of its own."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The side without rows: its SuperLink, and who may connect to it.", no_args_is_help=True, add_completion=False
)

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder.", metavar="DIR", show_default=False)]


@app.command()
def start(
    folder: Folder,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at; 0: any that is free.", min=0, max=65535)] = 8443,
    name: Annotated[
        list[str] | None, typer.Option(help="A name or address by which sites reach it, for its certificate.", metavar="HOST")
    ] = None,
) -> None:
    """Start a SuperLink with TLS and node authentication, and say what sites need. Runs until it is stopped."""
    from fivefold.engines.flower.door import Door
    from fivefold.engines.flower.superlink import make, running

    hosts = [*(name or []), "localhost", "127.0.0.1", *([host] if host != "0.0.0.0" else [])]
    coordinator = make(folder, hosts)
    door = Door(folder)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running(coordinator, host, port) as address:
        reach = f"{name[0]}:{address.rpartition(':')[2]}" if name else address
        typer.echo(f"a SuperLink listens at {address}; sites admitted: {', '.join(coordinator.sites()) or 'none yet'}\n")
        typer.echo(f"Give each site this address and the file {coordinator.authority}. There:")
        typer.echo(f"  fivefold site start --site DIR --superlink {reach} --root-certificates ca.pem\n")
        typer.echo("A site sends you keys/connection.pub. Let it in, under its name in the study:")
        typer.echo(f"  fivefold coordinator admit {folder} NAME connection.pub\n")
        typer.echo("Then, here:")
        typer.echo(f"  fivefold run STUDY --engine flower --coordinator {folder}")
        while not stop.wait(1.0):
            door.look(coordinator.sites().values())
    door.look(coordinator.sites().values())
    typer.echo("stopped")


@app.command()
def admit(
    folder: Folder,
    site: Annotated[str, typer.Argument(help="The site's name in the study.", metavar="NAME", show_default=False)],
    key: Annotated[
        Path,
        typer.Argument(help="The site's public connection key (its keys/connection.pub).", metavar="FILE", show_default=False),
    ],
) -> None:
    """Let a site connect. Who it is, its own signature says: this key only opens the door."""
    from fivefold.engines.flower.superlink import Coordinator
    from fivefold.engines.flower.superlink import admit as let_in
    from fivefold.errors import EngineProblem, KeyProblem

    data = key.read_bytes()
    if b"PRIVATE" in data or b"PUBLIC KEY" not in data:
        raise KeyProblem(
            f"{key} is not a public key file", help="Ask the site for keys/connection.pub, never for a private key."
        )
    coordinator = Coordinator(folder)
    if not coordinator.authority.is_file():
        raise EngineProblem(
            f"{folder} is not a coordinator's folder", help=f"Make one first: `fivefold coordinator start {folder}`."
        )
    new = let_in(coordinator, site, data)
    typer.echo(f"{site} may connect" if new else f"{site} could connect already")
