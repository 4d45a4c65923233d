"""What a study will cost before it runs: rounds, traffic, time, ε, and how many drop-outs and colluders its sums withstand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fivefold import plugins
from fivefold.governance.study_check import parsed
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Study

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
    costs = []
    for analysis in study.analyses:
        cost = plugins.method(analysis.method).cost(parsed(study, analysis))
        costs.append(AnalysisCost(analysis.name, analysis.method, cost.rounds, cost.numbers_per_round))
    n = len(study.sites)
    rounds = sum(c.rounds for c in costs)
    numbers = sum(c.rounds * c.numbers_per_round for c in costs)
    around = rounds * (ROUND_BYTES + (n - 1) * PEER_BYTES)
    up, down = numbers * NUMBER_BYTES + around, numbers * NUMBER_BYTES * n + around
    promise = thresholds(study)
    return Estimate(
        analyses=tuple(costs),
        sites=n,
        rounds=rounds,
        sent_by_site=up,
        received_by_site=down,
        total_bytes=n * (up + down),
        seconds=rounds * TRIPS[study.privacy.adversary] * trip_seconds + (up + down) / bytes_per_second,
        trip_seconds=trip_seconds,
        epsilon=None,
        threshold=promise.t,
        dropouts=promise.dropouts_tolerated,
        colluders=promise.colluders_tolerated,
    )
