"""`fivefold keys`: make and show the keys that sign studies, approvals and messages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fivefold.auth import keys

app = typer.Typer(help="Make and show the keys that sign.", no_args_is_help=True, add_completion=False)

KeyFile = Annotated[Path, typer.Argument(help="The key file.", metavar="FILE", show_default=False)]


def passphrase_for(path: Path) -> str | None:
    """The passphrase of a key file: from FIVEFOLD_PASSPHRASE, else asked; None where the file is not encrypted."""
    if not keys.is_encrypted(path):
        return None
    return os.environ.get("FIVEFOLD_PASSPHRASE") or typer.prompt(f"Passphrase of {path}", hide_input=True, err=True)


def open_key(path: Path) -> bytes:
    """The private key in a file, its passphrase asked for where it has one. Raises `KeyProblem`."""
    return keys.read_key(path, passphrase_for(path))


@app.command()
def new(
    file: KeyFile,
    protect: Annotated[
        bool, typer.Option("--passphrase", help="Encrypt the file; FIVEFOLD_PASSPHRASE or a question says how.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a new key (Ed25519): the private half in FILE, readable by you alone; the public half is printed."""
    phrase: str | None = None
    if protect:
        phrase = os.environ.get("FIVEFOLD_PASSPHRASE") or typer.prompt(
            "Passphrase", hide_input=True, confirmation_prompt=True, err=True
        )
    private = keys.new_key()
    keys.write_key(file, private, phrase)
    _print(file, keys.public_of(private), as_json)


@app.command()
def show(file: KeyFile, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the public key of FILE and its fingerprint, to be compared over a telephone."""
    _print(file, keys.public_of(open_key(file)), as_json)


def _print(file: Path, public: bytes, as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps({"file": str(file), "public_key": public.hex(), "fingerprint": keys.fingerprint(public)}))
        return
    typer.echo(f"public key   {public.hex()}")
    typer.echo(f"fingerprint  {keys.fingerprint(public)}")
