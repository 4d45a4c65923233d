"""Every requirement has one row, with a state; what is met names a test that exists, and what is not met names none. That each
named test passes, `tests/named_tests.py` sees to at the end of a run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "satre.md").read_text(encoding="utf-8")
LINES = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
REQUIREMENTS = [row for row in LINES if re.fullmatch(r"\d\.\d\.\d\d [MRO]", row[0])]
REQUESTS = [row for row in LINES if re.fullmatch(r"[A-Za-z0-9]+#\d+", row[0])]
STATES = ("met", "met with the organisation", "not yet")

NUMBERS = """
1.2.01 1.2.02 1.4.01 1.4.02 1.4.04 1.4.05 1.4.06 1.5.03 1.5.04 1.5.05 1.5.06 1.6.03 1.6.04 2.1.03 2.1.09
2.1.11 2.1.14 2.2.11 2.2.13 2.2.14 2.2.15 2.4.03 2.5.02 2.5.03 2.6.01 2.8.01 2.8.02 2.8.03 2.8.04 2.8.05
3.1.04 3.1.05 3.1.06 3.1.07 3.1.08 3.1.10 3.1.11 3.1.12 3.1.13 3.1.16 3.1.18 3.1.19 3.1.20 3.2.01 3.2.03
3.2.04 3.2.05 3.3.01 3.3.02 3.3.03 3.3.04 3.3.05 3.3.06 3.3.07 3.3.08 3.3.09 3.4.01 3.4.02 3.4.04 5.1.01
5.1.02 5.1.03 5.1.06 5.1.08 5.1.09 5.2.01 5.3.01 5.3.02 5.4.01 5.4.03 5.4.04 5.5.01 5.6.01 5.6.02
"""


def test_each_requirement_has_one_row() -> None:
    assert sorted(row[0].split()[0] for row in REQUIREMENTS) == sorted(NUMBERS.split())
    assert all(len(row) == 6 for row in REQUIREMENTS)
    assert all(len(row) == 5 for row in REQUESTS)
    assert len(REQUESTS) == len({row[0] for row in REQUESTS}) == 17
    assert len(LINES) == len(REQUIREMENTS) + len(REQUESTS) + 2 * 5


@pytest.mark.parametrize("row", [*REQUIREMENTS, *REQUESTS], ids=lambda row: row[0])
def test_what_is_met_names_a_test_that_exists(row: list[str]) -> None:
    state, how, played = row[2], row[3], row[4]
    assert state in STATES
    assert how
    named = re.findall(r"`(tests/[^`:]+)::(\w+)`", played)
    assert len(named) == 1 if state != "not yet" else len(named) <= 1
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, f"{file} has no test {name}"


def test_the_figures_of_the_page_are_those_of_its_rows() -> None:
    for state, number in re.findall(r"\*([A-Z][a-z ]+)\* \((\d+)\)", PAGE):
        assert int(number) == sum(row[2] == state[0].lower() + state[1:] for row in REQUIREMENTS), state
