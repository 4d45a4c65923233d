"""The benchmark of asynchronous training reads the right time off a course of losses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_loss_is_reached_when_it_is_not_left_again() -> None:
    code = """if True:
        from benchmarks.asynchronous import Course
        it = Course((0.0, 1.0, 2.0, 3.0, 4.0), (0.7, 0.3, 0.5, 0.4, 0.2))
        print([it.reached(x) for x in (0.7, 0.45, 0.35, 0.2, 0.1)])
    """
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[0.0, 3.0, 4.0, 4.0, None]"
