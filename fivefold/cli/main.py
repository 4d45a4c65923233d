"""The command's frame: `fivefold NOUN …`. Each noun is a module of this package, imported only when it is used.

Exit codes: 0 done; 2 the command line itself is wrong; 70 a fault of Fivefold's own; 74 a file cannot be read or written; 130
interrupted; all others stand in `fivefold/errors.py`, one for each kind of error.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

import fivefold
from fivefold.errors import FivefoldError, StorageFull

EXIT_INTERNAL = 70
EXIT_FILE = 74
EXIT_INTERRUPTED = 130
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

NOUNS = {
    "study": "Write, check, freeze and sign a study file.",
    "keys": "Make and show the keys that sign.",
    "site": "The side with the rows: policy, approval, rehearsal.",
    "policy": "What a site's policy will say to a study, decision by decision.",
    "doctor": "Check a site before the day: each fault with its next step.",
    "coordinator": "The side without rows, as a machine of its own.",
    "run": "Run a study's analyses over its sites.",
    "simulate": "Play a study over many simulated clients, ungoverned.",
    "outputs": "The airlock: ask for outputs, check them, release them.",
    "model": "Take a trained model out of a run, with its card.",
    "export": "Write a study for another platform to carry.",
    "audit": "Verify an audit log.",
    "report": "The evidence of a run on one page, as HTML and PDF.",
    "crate": "Pack a run as a research package; validate, reproduce, publish it.",
}
"""Every noun, in the order of the page; `fivefold.cli.NOUN` exposes `app` (a typer.Typer) or `command` (a click command)."""

INTRODUCTION = """Governed federated studies: sites keep their records, a coordinator receives only sums.

\b
A study goes like this:
  fivefold keys new lead.key         the lead makes a key
  fivefold study new                 asks, and writes study.yaml
  fivefold study check study.yaml    names every fault with its line
  fivefold study sign study.yaml --key lead.key
  fivefold site approve study.signed.json    each custodian says yes, or nothing runs
  fivefold run study.signed.json     rehearse the whole on one machine
"""


class Nouns(click.Group):
    """The list of nouns. Help is drawn from the table above, so that showing it imports nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module = import_module(f"fivefold.cli.{cmd_name}")
        if hasattr(module, "app"):
            from typer.main import get_command

            from fivefold.cli.arguments import explained

            return explained(get_command(module.app))
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in NOUNS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], NOUNS, n=1)
            instead = f"Did you mean `fivefold {near[0]}`?" if near else f"Use one of: {', '.join(NOUNS)}."
            ctx.fail(f"there is no command {args[0]!r}. {instead}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))
        formatter.write_paragraph()
        formatter.write_text("Every command explains itself: fivefold COMMAND --help")


@click.group(cls=Nouns, help=INTRODUCTION, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(fivefold.__version__, message="fivefold %(version)s")
def app() -> None:
    """The root; it does nothing itself."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. A user's mistake is a sentence and its own exit code, never a traceback."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """The exit code of a command line; what went wrong stands on stderr (on stdout as JSON under `--json`)."""
    as_json = "--json" in arguments
    try:
        code = app.main(arguments, prog_name="fivefold", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as shown:
        print(shown.format_message())
        return 2
    except click.ClickException as error:
        where = f" Look at `{error.ctx.command_path} --help`." if isinstance(error, click.UsageError) and error.ctx else ""
        return _say(error.format_message(), where.strip(), error.exit_code, "Usage", as_json)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", "", EXIT_INTERRUPTED, "Interrupted", as_json)
    except FivefoldError as error:
        return _say(error.message, error.hint, error.exit_code, error.code, as_json, error.public())
    except BrokenPipeError:
        # The reader of our output has gone, as with `| head`: nothing is left to be said to anyone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in FULL:
            full = StorageFull("the disk is full" + (f": {error.filename}" if error.filename else ""))
            return _say(full.message, full.hint, full.exit_code, full.code, as_json)
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _say(what, "Check the path and your rights to it.", EXIT_FILE, "File", as_json)
    except Exception:
        return _internal(as_json)


def _say(message: str, hint: str, code: int, name: str, as_json: bool, public: dict[str, str] | None = None) -> int:
    """Say what is wrong, and what to do next."""
    if as_json:
        import json

        error: dict[str, Any] = {"code": name, "message": message, "help": hint, "exit_code": code}
        print(json.dumps({"error": (public or {}) | error}, ensure_ascii=False))
        return code
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text("✗ ", style="bold red") + Text(message))
    if hint:
        console.print(Text("  " + hint.replace("\n", "\n  "), style="dim" if console.is_terminal else ""))
    return code


def _internal(as_json: bool) -> int:
    """A fault of our own: the traceback goes into a file that only its owner reads, and a sentence says where it is."""
    import tempfile
    import traceback
    from datetime import UTC, datetime
    from pathlib import Path

    from platformdirs import user_state_path

    text = f"fivefold {fivefold.__version__}, Python {sys.version}\n{traceback.format_exc()}"
    name = f"fivefold-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    where = ""
    for folder in (user_state_path("fivefold") / "faults", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            where = str(folder / name)
            break
        except OSError:
            continue
    hint = (
        f"What happened is written in {where}; please report it."
        if where
        else "It could not be written down: no folder is writable."
    )
    return _say("Fivefold made a mistake of its own", hint, EXIT_INTERNAL, "Internal", as_json)


if __name__ == "__main__":
    main()
