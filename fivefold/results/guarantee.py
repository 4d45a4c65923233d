"""What stands with every table and figure of a study with differential privacy: its (ε, δ), unit and neighbour relation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from fivefold.privacy.dp.accounting import spent
from fivefold.privacy.dp.words import sentences, short
from fivefold.protocol.results import Result
from fivefold.records.counts import PRIVACY
from fivefold.study.definition import DifferentialPrivacy

Other = TypeVar("Other")


def promise_of(private: DifferentialPrivacy | None, questions: int) -> str:
    """The promise of so many questions in one line; empty where sums are exact."""
    return (
        "" if private is None else short(private.unit, spent(questions, private.noise_multiplier, private.delta), private.delta)
    )


def stated(
    results: Mapping[str, Result | Other], private: DifferentialPrivacy | None, questions: int
) -> dict[str, Result | Other]:
    """The results, each with the promise that its run keeps: the fact that every line of counts tells (under figures, above
    tables), and the sentences among its notes and every table's. As they are where sums are exact."""
    if private is None:
        return dict(results)
    epsilon = spent(questions, private.noise_multiplier, private.delta)
    line, words = short(private.unit, epsilon, private.delta), sentences(private.unit, epsilon, private.delta, private.epsilon)

    def with_promise(result: Result) -> Result:
        tables = {
            name: replace(t, notes=(*t.notes, f"{line}, all answers of the run together")) for name, t in result.tables.items()
        }
        return replace(result, tables=tables, facts={**result.facts, PRIVACY: line}, notes=(*result.notes, *words))

    return {name: with_promise(r) if isinstance(r, Result) else r for name, r in results.items()}
