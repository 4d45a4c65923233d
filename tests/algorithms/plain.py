"""A driver of methods by plain addition: the same questions, answers and small-total rules as a run, without masks.

Not a test module. What `run(method, analysis, setting, tables)` returns is compared with a pooled reference; every answer is
checked on the way against the fields that its question declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fivefold.algorithms.method import Method, Setting
from fivefold.disclosure.rules import screen
from fivefold.privacy.fixed_point import pack, ring_for, unpack
from fivefold.privacy.secagg.ring import add_into
from fivefold.protocol.encoding import encode
from fivefold.protocol.questions import STATE, Aggregate, Field, Gather, Snapshot, Sum, read_only
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.table import Table

Drops = Mapping[int, Sequence[str]] | Callable[[int], Sequence[str]]
"""Which sites do not answer in which round (from 1)."""


@dataclass
class Transcript:
    """What was asked (bytes of each round) and what came back, so that a run can be replayed."""

    questions: list[Any] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    aggregates: list[Any] = field(default_factory=list)
    result: Result | None = None


def run(
    method: Method,
    analysis: Analysis,
    setting: Setting,
    tables: Sequence[Table],
    drops: Drops | None = None,
    stop_at: int = 0,
    *,
    ring: bool = False,
) -> Result:
    """The result of a method over several sites, each total added in float64, or with `ring` in the secure sum's arithmetic."""
    result = transcript(method, analysis, setting, tables, drops, stop_at, ring=ring).result
    assert result is not None
    return result


def transcript(
    method: Method,
    analysis: Analysis,
    setting: Setting,
    tables: Sequence[Table],
    drops: Drops | None = None,
    stop_at: int = 0,
    *,
    ring: bool = False,
) -> Transcript:
    """As `run`, with everything that passed. `stop_at` asks the method to stop from that round on."""
    log = Transcript()
    generator = method.rounds(method.parse(analysis, setting))
    sent: Any = None
    kept: dict[Any, Any] = {}  # what steps keep at their sites, by (site, place in the question, step)
    while (question := _next(generator, sent, log)) is not None:
        number = len(log.questions)
        away = set(drops(number) if callable(drops) else (drops or {}).get(number, ()))
        present = [t for t in tables if t.site not in away]
        sums = question if isinstance(question, tuple) else (question,)
        stop = 0 < stop_at <= number
        wide = any(f.kind != "update" for s in sums for f in s.fields)  # the sums of a question share a ring
        totals = tuple(
            aggregate(s, present, tables, setting, stop=stop, ring=ring, kept=kept, place=i, wide=wide)
            for i, s in enumerate(sums)
        )
        sent = totals if isinstance(question, tuple) else totals[0]
        log.aggregates.append(sent)
    return log


def aggregate(
    question: Sum,
    present: Sequence[Table],
    tables: Sequence[Table],
    setting: Setting,
    *,
    stop: bool = False,
    ring: bool = False,
    kept: dict[Any, Any] | None = None,
    place: int = 0,
    wide: bool = False,
) -> Aggregate:
    """One sum over the sites present, each answer checked against its question. `kept` holds what steps keep at sites."""
    answers = [checked(question, t, kept, place) for t in present]
    if isinstance(question, Gather):
        totals = {f.name: np.stack([np.asarray(a[f.name]) for a in answers]) for f in question.fields}
    elif ring:
        totals = in_the_ring(question, answers, len(tables), wide=wide)
    else:
        totals = {f.name: np.sum([np.asarray(a[f.name]) for a in answers], axis=0) for f in question.fields}
    screened = totals if isinstance(question, Gather) else screen(totals, question.fields, setting.minimum_persons)
    return Aggregate(
        {n: read_only(v) for n, v in screened.items()},
        tuple(t.site for t in present),
        tuple(t.site for t in tables if all(t is not p for p in present)),
        stop,
    )


def in_the_ring(question: Sum, answers: Sequence[Mapping[str, Any]], sites: int, *, wide: bool = False) -> dict[str, Any]:
    """The total as the secure sum would give it: in fixed point, without the masks; `wide` in Z_2^128 whatever the fields."""
    fields = (*question.fields, *((Field("wide", "count", 1.0),) if wide else ()))
    packed = [pack({**a, **({"wide": np.asarray(0)} if wide else {})}, fields, sites) for a in answers]
    for other in packed[1:]:
        add_into(packed[0], other, ring_for(fields))
    total = unpack(packed[0], fields, sites)
    total.pop("wide", None)
    return total


def checked(question: Sum, table: Table, kept: dict[Any, Any] | None = None, place: int = 0) -> Mapping[str, Any]:
    """A site's answer, which must have the declared fields, shapes and bounds, and be finite; counts must be whole."""
    key = (table.site, place, question.step.identity)
    more = {"state": kept.get(key)} if kept is not None and question.step.keeps_state else {}
    said = question.step(table, **question.arguments, **more)
    if kept is not None and question.step.keeps_state:
        kept[key] = said[STATE]
    answer = {n: v for n, v in said.items() if not n.startswith("@")}  # the gate's part
    assert set(answer) == {f.name for f in question.fields}, f"{question.step.identity}: fields {sorted(answer)}"
    for f in question.fields:
        value = np.asarray(answer[f.name])
        where = f"{question.step.identity}, field {f.name} at {table.site}"
        assert value.shape == f.shape, f"{where}: shape {value.shape}, declared {f.shape}"
        assert np.all(np.isfinite(value)), f"{where}: not finite"
        assert np.all(np.abs(value) <= f.bound), f"{where}: {np.abs(value).max()} beyond its bound {f.bound}"
        if f.kind in ("count", "cell", "persons"):
            assert np.all(value >= 0), f"{where}: a negative count"
            assert np.array_equal(value, np.round(value)), f"{where}: a count that is not whole"
    return answer


def described(question: Sum | tuple[Sum, ...]) -> Any:
    """A question as plain values, as it travels."""
    if isinstance(question, tuple):
        return [described(q) for q in question]
    fields = [[f.name, f.kind, float(f.bound), list(f.shape)] for f in question.fields]
    return {
        "step": question.step.identity, "fields": fields, "arguments": dict(question.arguments),
        "needs": list(question.needs) if isinstance(question, Sum) else "gathered",
    }  # fmt: skip


def replay(method: Method, analysis: Analysis, setting: Setting, log: Transcript) -> Transcript:
    """The same method fed with the recorded aggregates."""
    again = Transcript()
    generator = method.rounds(method.parse(analysis, setting))
    sent: Any = None
    waiting = list(log.aggregates)
    while _next(generator, sent, again) is not None:
        sent = waiting.pop(0)
        again.aggregates.append(sent)
    return again


def _next(generator: Any, sent: Any, log: Transcript) -> Any:
    """The next question, noted; None at the end, when the result is noted. Snapshots are passed over."""
    while True:
        try:
            question = generator.send(sent)
        except StopIteration as done:
            log.result = done.value
            return None
        if not isinstance(question, Snapshot):
            log.questions.append(question)
            log.encoded.append(encode(described(question)))
            return question
        sent = None


def split(table: Table, sites: Sequence[str], index: np.ndarray) -> tuple[Table, ...]:
    """One table into several sites by an index for each row; persons are numbered anew at each site."""
    out = []
    for i, site in enumerate(sites):
        part = table.take(index == i)
        _, person = np.unique(part.person, return_inverse=True)
        out.append(Table(site, part.dictionary, part.columns, person.astype(np.int64)))
    return tuple(out)
