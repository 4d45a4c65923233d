"""Does the result follow from the aggregates? The study is replayed from its journal, and what comes out is compared.

No row is read and no site is asked: a replay is arithmetic on totals. A re-run at the sites is a new run, with approvals and
budget of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fivefold.protocol.encoding import digest
from fivefold.protocol.results import Result
from fivefold.records.sealed_journal import Aggregate
from fivefold.replay.compare import described
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.results.guarantee import bounds, stated
from fivefold.results.tables import plain_of
from fivefold.study.definition import Analysis, Study

TOLERANCE = 1e-10
"""Values that differ by no more, of the larger of both and 1, are the same result on another CPU kernel."""

Outcomes = Literal["identical", "numerical", "different"]


@dataclass(frozen=True)
class Reproduction:
    """What a replay came to. `difference` names the first place that differs, in words; `largest` is the largest difference of
    any value (of the larger of both and 1); `drifted` is the first round whose question differed in its last bits, or 0."""

    outcome: Outcomes
    then: str
    now: str
    difference: str = ""
    largest: float = 0.0
    drifted: int = 0


def reproduce(
    study: Study,
    aggregates: Sequence[Aggregate],
    result: Mapping[str, Any],
    *,
    analyses: tuple[Analysis, ...] = (),
    shaped: Callable[[dict[str, Result]], Mapping[str, Result]] = lambda results: results,
) -> Reproduction:
    """Replay a study from its aggregates and compare with `result`, the value of a result.json (times and run left out).

    `analyses`: the variations that were run in place of the study's own. `shaped`: what a release made of the results, such as
    hidden or rounded cells.
    """
    then = result_digest(result)
    cursor, drifted, fault = replayed(study, aggregates, analyses)
    if fault:
        return Reproduction("different", then, "", fault, float("inf"), drifted)
    private = study.privacy.differential_privacy
    results = {
        n: r
        for n, r in stated(cursor.results, private, len(aggregates), bounds(study, analyses)).items()
        if isinstance(r, Result)
    }
    named = {a["name"] for a in _analyses(result)}
    made = shaped({n: r for n, r in results.items() if n in named})
    again = {"analyses": json.loads(json.dumps([{"name": n} | plain_of(r) for n, r in made.items()]))}
    now = result_digest(again)
    if now == then:
        return Reproduction("identical", then, now, drifted=drifted)
    first, largest = compared(_analyses(result), _analyses(again))
    return Reproduction("different" if first else "numerical", then, now, first, largest, drifted)


def replayed(study: Study, aggregates: Sequence[Aggregate], analyses: tuple[Analysis, ...] = ()) -> tuple[Cursor, int, str]:
    """The cursor at the end of the journal; the first round whose question differed in its bits (0: none); and a sentence where
    the journal does not fit the study at all."""
    cursor, drifted = Cursor(study, analyses), 0
    for one in aggregates:
        asked = cursor.open
        if asked is None or asked.round != one.round:
            cursor.close()
            return cursor, drifted, f"round {one.round} is not asked by the study any more: its analyses ended before"
        if digest(described(asked.question)) != one.question:
            drifted = drifted or one.round
        try:
            cursor.feed(Outcome(one.totals, one.sites, one.dropped, one.ended))
        except (ValueError, KeyError, IndexError, np.linalg.LinAlgError) as error:
            return cursor, drifted, f"round {one.round} cannot be replayed: {type(error).__name__}"
    if cursor.open is not None:
        number = cursor.open.round
        cursor.close()
        return cursor, drifted, f"the study asks a round {number} that the journal does not have"
    return cursor, drifted, ""


def result_digest(result: Mapping[str, Any]) -> str:
    """SHA-256 of a result without times, run and title: its analyses alone."""
    plain = json.dumps(_analyses(result), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def compared(then: Any, now: Any) -> tuple[str, float]:
    """The first place where two plain values differ by more than the tolerance, in words (empty: none), and the largest
    difference of any two numbers."""
    first, largest = "", 0.0
    for place, a, b in _pairs(then, now, ""):
        if _number(a) and _number(b):
            gap = abs(a - b) / max(1.0, abs(a), abs(b))
            largest = max(largest, gap)
            if gap <= TOLERANCE:
                continue
        first = first or f"{place}: was {_short(a)}, is {_short(b)}"
    return first, largest


def differing_rounds(then: Sequence[Aggregate], now: Sequence[Aggregate]) -> str:
    """The first round whose totals differ between two runs of one study, in words; empty where none does."""
    for a, b in zip(then, now, strict=False):
        if (a.sites, a.ended) != (b.sites, b.ended):
            return f"round {a.round}: other sites answered, or it ended otherwise"
        for old, new in zip(a.totals, b.totals, strict=True):
            for name in old:
                if old[name].shape != new[name].shape or not np.array_equal(old[name], new[name], equal_nan=True):
                    return f"round {a.round}: the total {name!r} differs"
    return f"round {min(len(then), len(now)) + 1}: only one of the runs has it" if len(then) != len(now) else ""


def _pairs(then: Any, now: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Every pair of leaves that is not the same value, with where it stands."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*then, *(k for k in now if k not in then)]:
            yield from _pairs(then.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            named = a.get("name") if isinstance(a, Mapping) else None
            yield from _pairs(a, b, f"{place}[{named or i}]")
    elif isinstance(then, list) and isinstance(now, list):
        yield f"{place}: the number of entries", len(then), len(now)
    elif then != now or type(then) is not type(now):
        yield place, then, now


def _analyses(result: Mapping[str, Any]) -> Any:
    return result["analyses"]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return repr(value) if not isinstance(value, (list, Mapping)) else f"a {type(value).__name__}"
