"""The command's frame: quick, lazy, and never a traceback for a user's mistake."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

import fivefold
from fivefold.cli import main as frame
from fivefold.errors import TooFewSites

HEAVY = {
    "typer", "rich", "numpy", "pandas", "scipy", "sqlalchemy", "pint", "matplotlib", "rocrate", "pyarrow", "pydantic",
    "ruamel", "cryptography", "cbor2", "torch", "flwr", "lifelines", "sklearn", "dp_accounting",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_import_brings_nothing_heavy() -> None:
    assert not modules_after("import fivefold") & HEAVY


def test_help_brings_nothing_heavy_and_lists_every_noun() -> None:
    code = "from fivefold.cli.main import run\nassert run(['--help']) == 0"
    assert not modules_after(code) & HEAVY
    done = subprocess.run([sys.executable, "-m", "fivefold.cli.main", "--help"], capture_output=True, text=True, check=True)
    assert all(f"  {noun}" in done.stdout for noun in frame.NOUNS)


def test_a_noun_is_imported_only_when_it_is_used() -> None:
    assert "typer" in modules_after("from fivefold.cli.main import run\nrun(['keys', '--help'])")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["--version"]) == 0
    assert capsys.readouterr().out == f"fivefold {fivefold.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["studi"], "Did you mean `fivefold study`?"),
        (["nonsense-word"], "Use one of: study,"),
        (["keys", "show"], "Missing argument 'FILE'"),
        (["keys", "show", "a", "--colour"], "--colour"),
        (["--colour"], "--colour"),
        (["coordinator", "start", "c", "--port", "99999"], "65535"),
        (["run", "s.yaml", "--out", "a", "--resume", "b"], "not both"),
    ],
)
def test_a_wrong_command_line_is_exit_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "--help" in shown.err
    assert "Traceback" not in shown.err


def test_a_near_name_is_suggested_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["study", "schemas"]) == 2
    assert capsys.readouterr().err.count("Did you mean 'schema'?") == 1


def test_no_arguments_show_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run([]) == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes `fivefold run` raise."""

    def install(error: BaseException) -> None:
        @click.command(context_settings={"ignore_unknown_options": True})
        @click.argument("rest", nargs=-1)
        def command(rest: tuple[str, ...]) -> None:
            raise error

        module = ModuleType("fivefold.cli.run")
        module.command = command
        monkeypatch.setitem(sys.modules, "fivefold.cli.run", module)

    return install


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (TooFewSites("two sites answered"), 34, "✗ two sites answered\n  Wait for more sites"),
        (KeyboardInterrupt(), 130, "✗ interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/journal"), 54, "✗ the disk is full: /x/journal\n  Free space"),
        (OSError(errno.EFBIG, "File too large"), 54, "✗ the disk is full\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 74, "✗ /x: Permission denied\n  Check the path"),
    ],
)
def test_each_kind_of_error_is_a_sentence_with_its_exit_code(
    failing: Callable[[BaseException], None], error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert frame.run(["run"]) == code
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""


def test_under_json_an_error_is_json(failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]) -> None:
    failing(TooFewSites("two sites answered", rule="minimum_sites"))
    assert frame.run(["run", "--json"]) == 34
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {
        "code": "TooFewSites",
        "rule": "minimum_sites",
        "variable": "",
        "message": "two sites answered",
        "help": TooFewSites.help,
        "exit_code": 34,
    }


def test_markup_in_a_message_is_shown_as_it_is(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(TooFewSites("variable [bold]x[/bold] :smile:"))
    frame.run(["run"])
    assert "variable [bold]x[/bold] :smile:" in capsys.readouterr().err


def test_a_fault_of_our_own_is_written_down(
    failing: Callable[[BaseException], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    failing(ZeroDivisionError("inside"))
    assert frame.run(["run"]) == 70
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    (report,) = (tmp_path / "fivefold" / "faults").iterdir()
    assert str(report) in shown.err
    assert "ZeroDivisionError: inside" in report.read_text(encoding="utf-8")
    assert report.stat().st_mode & 0o777 == 0o600


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = f"{sys.executable} -m fivefold.cli.main study schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_ctrl_c_in_a_prompt_is_130(tmp_path: Path) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "fivefold.cli.main", "study", "new", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(5) == b"Title"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"interrupted" in err
    assert not list(tmp_path.iterdir())


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    return [
        one
        for name in command.list_commands(context)
        for below in [command.get_command(context, name)]
        if below is not None
        for one in commands(below, (*path, name))
    ]


def test_help_says_what_each_argument_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command is asked: the words of its arguments and options stand on the page, whole."""
    monkeypatch.setenv("COLUMNS", "300")
    found = commands(frame.app)
    assert len(found) > 20
    arguments = 0
    for path, command in found:
        assert frame.run([*path, "--help"]) == 0
        page = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for parameter in command.params:
            words = getattr(parameter, "help", None)
            assert words, f"{' '.join(path)}: nothing says what {parameter.name} is"
            assert " ".join(words.split()) in page, f"{' '.join(path)}: {words!r} does not stand in its --help"
            arguments += isinstance(parameter, click.Argument)
    assert arguments > 15
