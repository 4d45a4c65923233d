"""Writes docs/reference/command-line.md from the commands: `python -m tools.command_line_page`. A test compares the two."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from fivefold.cli.main import EXIT_FILE, EXIT_INTERNAL, EXIT_INTERRUPTED, NOUNS, app
from fivefold.errors import FivefoldError

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "command-line.md"
HEAD = """# The command line

`fivefold NOUN VERB …`. This page is written from the commands themselves; `--help` after any of them says the same.
Commands whose output a program may want to read take `--json`; what goes wrong is one sentence and a next step on the
standard error, with an exit code of its own ([below](#exit-codes)).
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD, "| | |\n| --- | --- |\n" + "".join(f"| [`{n}`](#{n}) | {said} |\n" for n, said in NOUNS.items())]
    context = click.Context(app, info_name="fivefold")
    for noun in NOUNS:
        command = app.get_command(context, noun)
        assert command is not None
        parts += [f"## {noun}\n", *_command(command, click.Context(command, info_name=noun, parent=context))]
    return "\n".join([*parts, "## Exit codes\n", _exit_codes()])


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield _words(command.help or "") + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                inner = click.Context(below, info_name=name, parent=context)
                if not isinstance(below, click.Group):
                    yield f"### {inner.command_path.removeprefix('fivefold ')}\n"
                yield from _command(below, inner)
        return
    yield f"`{' '.join([context.command_path, *command.collect_usage_pieces(context)])}`\n"
    rows = [row for p in command.params if (row := _parameter(p, context))]
    if rows:
        yield "| | |\n| --- | --- |\n" + "".join(rows)


def _parameter(parameter: click.Parameter, context: click.Context) -> str:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return ""
    shown = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if isinstance(parameter, click.Argument) or parameter.param_type_name == "argument":
        shown = f"`{parameter.make_metavar(context)}`"
    elif not getattr(parameter, "is_flag", False):
        shown += f" `{parameter.make_metavar(context)}`"
    said = _words(getattr(parameter, "help", None) or "")
    more = " Required." if parameter.required and parameter.param_type_name == "option" else ""
    return f"| {shown.replace('|', chr(92) + '|')} | {said.replace('|', chr(92) + '|')}{more} |\n"


def _words(text: str) -> str:
    """Help as one paragraph a block; angle brackets stay what they are."""
    blocks = [" ".join(block.replace("\b", "").split()) for block in text.split("\n\n")]
    return re.sub(r"<(?=\w)", "&lt;", "\n\n".join(blocks))


def _exit_codes() -> str:
    rows = {0: ("done", ""), 2: ("the command line itself is wrong", "The sentence names the option; so does `--help`.")}
    rows[EXIT_INTERNAL] = ("a fault of Fivefold's own", "A file with what happened is named; please report it.")
    rows[EXIT_FILE] = ("a file cannot be read or written", "Check the path and your rights to it.")
    rows[EXIT_INTERRUPTED] = ("interrupted", "`fivefold run` again goes on from where it stopped.")
    for kind in _below(FivefoldError):
        rows[kind.exit_code] = (f"`{kind.__name__}`", kind.help)
    lines = "".join(f"| {code} | {name} | {_words(hint)} |\n" for code, (name, hint) in sorted(rows.items()))
    return "| code | what | next step |\n| ---: | --- | --- |\n" + lines


def _below(kind: type[FivefoldError]) -> Iterator[type[FivefoldError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _below(below)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
