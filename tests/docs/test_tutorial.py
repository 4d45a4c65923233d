"""The tutorial is a test: every page's commands are run in a fresh folder, and what they print is compared with the page.

In a `console` block a line that begins with `$ ` is a command, and the lines below are what it prints; `...` alone stands for
any lines, `...` within a line for any text. A command ends with exit code 0 unless the page says `# exit N`. A block with a
title is written to a file of that name. `python` blocks of a page share their names; a block titled "output" is what the one
before printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+# exit (\d+)$")


@dataclass(frozen=True)
class Command:
    """A command of a console block, the exit code and the output that the page shows (None: nothing is shown)."""

    line: str
    code: int
    shown: str | None


def commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        code = EXIT.search(line)
        yield Command(EXIT.sub("", line), int(code.group(1)) if code else 0, shown.strip("\n") or None)


def agrees(shown: str, printed: str) -> bool:
    """Whether printed lines are those that a page shows, `...` standing for anything."""
    pattern = ""
    for line in shown.splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(p) for p in line.rstrip().split("...")) + r"[^\S\n]*\n"
    lines = "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch(pattern, lines) is not None


def run(command: Command, folder: Path) -> None:
    surroundings = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        ["bash", "-c", command.line],
        cwd=folder,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == command.code, f"$ {command.line}\nended with {done.returncode}:\n{done.stdout}"
    if command.shown is not None:
        assert agrees(command.shown, done.stdout), (
            f"$ {command.line}\nprinted:\n{done.stdout}\nthe page shows:\n{command.shown}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    printed, done = "", 0
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        language, title, text = block["language"], block["title"], block["text"]
        if title == "output":
            assert agrees(text, printed), f"printed:\n{printed}\nthe page shows:\n{text}"
        elif title:
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / title).write_text(text, encoding="utf-8")
            continue
        elif language == "console":
            for command in commands(text):
                run(command, tmp_path)
        elif language == "python":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(text, f"{page.name}", "exec"), names)
            printed = said.getvalue()
        else:
            continue
        done += 1
    assert done, "the page has nothing to run"


def test_there_are_pages() -> None:
    assert [p.name[:2] for p in PAGES] == [f"{i}-" for i in range(1, len(PAGES) + 1)]
    assert len(PAGES) >= 4


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a", "b", False),
        ("a\n...", "a\nb\nc", True),
        ("...\nc", "a\nb\nc", True),
        ("...\nc", "a\nb", False),
        ("n = ...", "n = 12", True),
        ("n = ...", "m = 12", False),
        ("a\n...\nc", "a\nc", True),
        ("a", "a\nb", False),
    ],
)
def test_output_is_compared(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


def test_a_wrong_exit_code_is_noticed(tmp_path: Path) -> None:
    (command,) = commands("$ exit 3  # exit 3\n")
    assert command == Command("exit 3", 3, None)
    run(command, tmp_path)
    with pytest.raises(AssertionError, match="ended with 3"):
        run(Command("exit 3", 0, None), tmp_path)
