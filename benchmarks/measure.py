"""Timing on a machine that others use too: contestants take turns, and the best turn of each counts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

Figures = dict[str, float | int | str | None]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(contestants: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """The best wall time of each. They take turns, so that a busy moment of the machine does not fall on one alone."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(turns):
        for name, work in contestants.items():
            best[name] = min(best[name], seconds(work))
    return best


def report(name: str, figures: Figures, targets: Mapping[str, str]) -> None:
    """The last line: one JSON object. `targets` says what is wanted of a figure, as ">= 7" or "< 0.3"."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"name": name, **rounded, "targets": dict(targets)}, ensure_ascii=False))


def met(value: Any, target: str) -> bool:
    """Whether a figure meets its target."""
    sign, limit = target.split()
    return isinstance(value, (int, float)) and (value >= float(limit) if sign == ">=" else value < float(limit))
