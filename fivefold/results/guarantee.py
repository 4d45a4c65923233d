"""What stands with every table and figure of a study with differential privacy: its (ε, δ), unit and neighbour relation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from fivefold.algorithms.method import Cost, charged
from fivefold.plugins import method
from fivefold.privacy.dp.accounting import spent
from fivefold.privacy.dp.words import sentences, short
from fivefold.protocol.results import Result
from fivefold.records.counts import PRIVACY
from fivefold.replay.cursor import setting_of
from fivefold.study.definition import Analysis, DifferentialPrivacy, Study

Other = TypeVar("Other")


def bounds(study: Study, analyses: Sequence[Analysis] = ()) -> tuple[Cost, ...]:
    """What the analyses (the study's own, if none are given) may cost at most; empty where sums are exact."""
    if study.privacy.differential_privacy is None:
        return ()
    found = ((method(a.method), a) for a in analyses or study.analyses)
    return tuple(about.cost(about.parse(a, setting_of(study))) for about, a in found)


def epsilon_of_run(private: DifferentialPrivacy, questions: int, costs: Sequence[Cost] = ()) -> float:
    """ε of a run's questions. Where sites took noisy steps of their own (by `costs`), that of all that were announced."""
    shared, own = charged(costs)
    return spent(min(questions, shared) if own else questions, private.noise_multiplier, private.delta, own)


def promise_of(private: DifferentialPrivacy | None, questions: int, costs: Sequence[Cost] = ()) -> str:
    """The promise of so many questions in one line; empty where sums are exact."""
    return "" if private is None else short(private.unit, epsilon_of_run(private, questions, costs), private.delta)


def stated(
    results: Mapping[str, Result | Other],
    private: DifferentialPrivacy | None,
    questions: int,
    costs: Sequence[Cost] = (),
) -> dict[str, Result | Other]:
    """The results, each with the promise that its run keeps: the fact that every line of counts tells (under figures, above
    tables), and the sentences among its notes and every table's. As they are where sums are exact."""
    if private is None:
        return dict(results)
    epsilon = epsilon_of_run(private, questions, costs)
    line, words = short(private.unit, epsilon, private.delta), sentences(private.unit, epsilon, private.delta, private.epsilon)

    def with_promise(result: Result) -> Result:
        tables = {
            name: replace(t, notes=(*t.notes, f"{line}, all answers of the run together")) for name, t in result.tables.items()
        }
        return replace(result, tables=tables, facts={**result.facts, PRIVACY: line}, notes=(*result.notes, *words))

    return {name: with_promise(r) if isinstance(r, Result) else r for name, r in results.items()}
