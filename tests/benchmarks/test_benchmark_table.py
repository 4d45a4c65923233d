"""The table of docs/benchmarks.md is rewritten between its markers, and a missed target is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULT = {"name": "thing", "seconds": 1234.5, "ratio_to_peer": 7.25, "gain": None, "targets": {"ratio_to_peer": ">= 8"}}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_figures_with_targets_come_first_and_missed_ones_say_so() -> None:
    lines = run(f"from benchmarks.__main__ import table; print(table([{RESULT!r}]))").splitlines()
    assert lines[0].startswith("Measured on 2")
    assert lines[4:] == [
        "| thing | `ratio_to_peer` | 7.25 | >= 8 | no |",
        "| thing | `seconds` | 1,234 |  |  |",
        "| thing | `gain` | not measured |  |  |",
    ]


def test_targets() -> None:
    got = run(
        "from benchmarks.measure import met; print([met(7, '>= 7'), met(6.9, '>= 7'), met(0.2, '< 0.3'), met(None, '< 0.3')])"
    )
    assert got.strip() == "[True, False, True, False]"


def test_only_what_stands_between_the_markers_changes() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    code = "from benchmarks.__main__ import PAGE, rewritten; print(rewritten(PAGE.read_text(), 'NEW'), end='')"
    new = run(code)
    begin, end = "<!-- table: begin", "<!-- table: end -->"
    assert new.split(begin)[0] == page.split(begin)[0]
    assert new.split(end)[1] == page.split(end)[1]
    assert "\n\nNEW\n\n" in new


def test_a_benchmark_ends_with_one_line_of_json() -> None:
    out = run(
        "from benchmarks.measure import report; print('words'); report('x', {'ratio_to_y': 1.23456}, {'ratio_to_y': '>= 1'})"
    )
    assert json.loads(out.splitlines()[-1]) == {"name": "x", "ratio_to_y": 1.2346, "targets": {"ratio_to_y": ">= 1"}}
