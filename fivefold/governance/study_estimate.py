"""What a study will cost before it runs: rounds, traffic, time, ε, and how many drop-outs and colluders its sums withstand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fivefold import plugins
from fivefold.algorithms.method import charged
from fivefold.governance.study_check import parsed
from fivefold.privacy.dp.accounting import multiplier_for, spent
from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.study.consistency import thresholds
from fivefold.study.definition import DifferentialPrivacy, Study

NUMBER_BYTES = 16
"""Of one number in the ring Z_2^128."""
PEER_BYTES = 900
"""Of what a site exchanges with one other site in a round: signed keys, a sealed share, an opened share, a survivor entry."""
ROUND_BYTES = 2_000
"""Of a question, an aggregate's head and signatures in a round."""
TRIPS = {"active": 3, "curious": 2}


@dataclass(frozen=True)
class AnalysisCost:
    """An upper bound: rounds, and numbers in each."""

    name: str
    method: str
    rounds: int
    numbers_per_round: int
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Noise:
    """What the study says of its noise, and the smallest multiplier with which its questions keep to its ε."""

    said: DifferentialPrivacy
    least_multiplier: float
    own: bool = False
    """Whether sites take noisy steps of their own: a table of rounds and multipliers would not say what those cost."""


@dataclass(frozen=True)
class Estimate:
    """Bytes are of all rounds; `seconds` supposes `trip_seconds` for each trip between site and coordinator. `epsilon` is None
    where sums are exact. `dropouts` and `colluders` are what every sum withstands."""

    analyses: tuple[AnalysisCost, ...]
    sites: int
    rounds: int
    sent_by_site: int
    received_by_site: int
    total_bytes: int
    seconds: float
    trip_seconds: float
    epsilon: float | None
    noise: Noise | None
    threshold: int
    dropouts: int
    colluders: int

    def as_json(self) -> Mapping[str, Any]:
        """Plain values."""
        from dataclasses import asdict

        return asdict(self)


def estimate(study: Study, *, trip_seconds: float = 0.2, bytes_per_second: float = 1e6) -> Estimate:
    """Bound what the study's analyses ask. Each site sends its masked numbers and receives those of all sites, from which it
    checks the total itself. Raises `StudyInvalid` or `FormulaInvalid` where an analysis cannot be read."""
    costs, bounded = [], []
    for analysis in study.analyses:
        cost = plugins.method(analysis.method).cost(parsed(study, analysis))
        bounded.append(cost)
        costs.append(AnalysisCost(analysis.name, analysis.method, cost.rounds, cost.numbers_per_round, cost.remarks))
    n = len(study.sites)
    rounds = sum(c.rounds for c in costs)
    numbers = sum(c.rounds * c.numbers_per_round for c in costs)
    around = rounds * (ROUND_BYTES + (n - 1) * PEER_BYTES)
    up, down = numbers * NUMBER_BYTES + around, numbers * NUMBER_BYTES * n + around
    shared, own = charged(bounded)
    promise, private = thresholds(study), study.privacy.differential_privacy
    return Estimate(
        analyses=tuple(costs),
        sites=n,
        rounds=rounds,
        sent_by_site=up,
        received_by_site=down,
        total_bytes=n * (up + down),
        seconds=rounds * TRIPS[study.privacy.adversary] * trip_seconds + (up + down) / bytes_per_second,
        trip_seconds=trip_seconds,
        epsilon=None if private is None else spent(shared, private.noise_multiplier, private.delta, own),
        noise=None
        if private is None
        else Noise(private, multiplier_for(shared if own else max(shared, 1), private.epsilon, private.delta, own), bool(own)),
        threshold=promise.t,
        dropouts=promise.dropouts_tolerated,
        colluders=promise.colluders_tolerated,
    )


def what_if(bounded: Estimate) -> ResultTable | None:
    """ε against rounds and noise multiplier: a row for each pair, around what the study says. None where sums are exact."""
    if bounded.noise is None or bounded.noise.own:
        return None
    said, questions = bounded.noise.said, max(bounded.rounds, 1)
    factors = sorted({said.noise_multiplier, bounded.noise.least_multiplier, *(said.noise_multiplier * f for f in (0.5, 2, 4))})
    asked = sorted({1, questions, *(max(1, round(questions * f)) for f in (0.5, 2, 4))})
    rows = [(n, float(f"{z:.4g}"), spent(n, z, said.delta)) for z in factors for n in asked]
    return ResultTable.of(
        "ε against rounds and noise", ("rounds", "noise_multiplier", "epsilon"), rows,
        notes=(f"at δ = {said.delta:g}; the study's cap is ε = {said.epsilon:g}",),
    )  # fmt: skip


def what_if_figure(table: ResultTable) -> tuple[Figure, Result]:
    """The same as curves, one a multiplier."""
    drawn = ResultTable.of(
        table.title, ("rounds", "epsilon", "series"), [(n, e, f"noise multiplier {z:g}") for n, z, e in table.rows]
    )
    figure = Figure(
        "curve", "what_if", "What privacy costs: ε against rounds and noise", {"x": "rounds", "y": "epsilon", "series":
        "series"}, "rounds", "ε", log_x=True,
    )  # fmt: skip
    return figure, Result("estimate", {"what_if": drawn}, {}, ())
