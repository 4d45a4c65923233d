"""A run of the whole suite fails where a test that a page names was skipped, left out or failed; a part is asked for less."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.named_tests import broken, named

ROOT = Path(__file__).parents[2]
WANTED = {("tests/a.py", "test_one"): "page: 1"}
PAGE = "| requirement | | state | how | test |\n| 1.2.01 M | w | met | h | `tests/test_a.py::test_one` |\n"
TESTS = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_one(n):
    if "{how}" == "skipped" and n == 2:
        pytest.skip("not here")

def test_two():
    pass
"""


@pytest.mark.parametrize(
    ("outcomes", "whole", "told"),
    [
        ({"tests/a.py::test_one": "passed"}, True, ""),
        ({"tests/a.py::TestIt::test_one[x-1]": "passed"}, True, ""),
        ({"tests/a.py::test_one[1]": "passed", "tests/a.py::test_one[2]": "skipped"}, True, "skipped"),
        ({"tests/a.py::test_one": "failed"}, False, "failed"),
        ({"tests/a.py::test_one": "skipped"}, False, ""),
        ({"tests/b.py::test_one": "passed"}, True, "not run"),
        ({}, False, ""),
    ],
)
def test_what_counts_as_passed(outcomes: dict[str, str], whole: bool, told: str) -> None:
    found = broken(WANTED, outcomes, whole=whole)
    assert bool(found) == bool(told)
    assert all(line.endswith(f"was {told}") and line.startswith("page: 1") for line in found)


def test_both_pages_are_read() -> None:
    pages = {row.split(":")[0] for row in named(ROOT).values()}
    assert pages == {"docs/satre.md", "docs/threat-model.md"}
    assert len(named(ROOT)) > 100


@pytest.mark.parametrize(
    ("how", "words", "code"),
    [("passed", [], 0), ("skipped", ["-p", "xdist.plugin", "-n", "2"], 1), ("skipped", ["-k", "two"], 0)],
)
def test_a_whole_run_needs_each_named_test(tmp_path: Path, how: str, words: list[str], code: int) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "docs" / "satre.md").write_text(PAGE)
    (tmp_path / "tests" / "test_a.py").write_text(TESTS.replace("{how}", how))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib -p tests.named_tests\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert ("docs/satre.md: 1.2.01 M: tests/test_a.py::test_one was skipped" in done.stdout) == (code == 1)
