"""Every threat names the test that plays it, and that test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
TABLES = [block for block in PAGE.split("\n\n") if block.startswith("| threat |")]  # other tables hold figures
ROWS = [[c.strip() for c in line.strip("|").split("|")] for block in TABLES for line in block.splitlines()]
THREATS = [row for row in ROWS if row[0] != "threat" and not set(row[0]) <= {"-", " "}]


def defined_in(file: Path) -> set[str]:
    """The names of the tests in a file: functions, and machines of hypothesis (`TestX = X.TestCase`)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    machines = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return {name for name in functions | machines if name.lower().startswith("test")}


def test_the_table_is_read() -> None:
    assert len(THREATS) > 40
    assert all(len(row) == 3 for row in THREATS)
    assert len({row[0] for row in THREATS}) == len(THREATS)


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0])
def test_each_threat_is_played(row: list[str]) -> None:
    _, protection, played = row
    assert protection
    named = re.findall(r"`(tests/[^`:]+)::(\w+)`", played)
    assert named, f"no test is named: {played!r}"
    for file, name in named:
        assert (ROOT / file).is_file(), f"{file} does not exist"
        assert name in defined_in(ROOT / file), f"{file} has no test {name}"
