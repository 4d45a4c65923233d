"""The arguments that the commands of a site share, and their words in each command's --help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import typer

Where = Annotated[Path, typer.Option("--site", envvar="FIVEFOLD_SITE", help="The site's folder.", metavar="DIR")]
HERE = Path(".")
StudyFile = Annotated[Path, typer.Argument(help="The signed study (STUDY.signed.json).", metavar="STUDY", show_default=False)]
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="The custodian's key; keys/custodian.key of the site if left out.", metavar="FILE")
]


def explained(command: click.Command) -> click.Command:
    """The command, and all below it, with the help of each argument as its function's signature gives it.

    Typer 0.20 sets an argument's help before click 8.5's constructor, which then clears it again; only options keep theirs.
    With versions that keep them, nothing changes.
    """
    from typer.core import TyperGroup

    if isinstance(command, TyperGroup):
        command.suggest_commands = False  # click suggests names itself since 8.5; both together say it twice
    if isinstance(command, click.Group):
        for below in command.commands.values():
            explained(below)
    if command.callback is None or not any(isinstance(p, click.Argument) for p in command.params):
        return command
    from typer.models import ParameterInfo
    from typer.utils import get_params_from_function

    said = get_params_from_function(command.callback)
    for param in command.params:
        info = said[param.name].default if param.name in said else None
        if isinstance(param, click.Argument) and isinstance(info, ParameterInfo):
            param.help = param.help or info.help
    return command
