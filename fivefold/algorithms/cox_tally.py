"""The first round of a Cox model: who is in it, and on a grid when events happen. It is asked again when the sites change."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms import cohort, cox_steps, cox_sums
from fivefold.algorithms.cohort import Facts, Watch
from fivefold.algorithms.cox_diagnostics import transformed
from fivefold.algorithms.cox_spec import CoxSpec
from fivefold.algorithms.cox_sums import Cells, Floats, Ints, RiskSums
from fivefold.algorithms.design import scaling
from fivefold.algorithms.survival_grid import persons_at_risk, require_unscreened
from fivefold.algorithms.survival_rows import require_events
from fivefold.errors import NotConverged
from fivefold.protocol.questions import Aggregate


@dataclass(frozen=True)
class Tally:
    """The cohort, the public constants of its model, and on a grid its event cells: `deaths`, `weight`, `at_risk`
    and `risk_weight` (c,); `all_at_risk` is the weight at risk over all strata at every grid time. Without a grid there is no
    cell. `stopped`: the run was asked to end here."""

    facts: Facts
    model: dict[str, Any]
    cells: Cells
    deaths: Ints
    weight: Floats
    at_risk: Floats
    risk_weight: Floats
    all_at_risk: Floats
    stopped: bool = False

    @property
    def tied(self) -> npt.NDArray[np.bool_]:
        return self.deaths > 1


def counted(spec: CoxSpec, watch: Watch, before: Tally | None) -> Generator[Any, Any, Tally]:
    """Ask and read. The constants that scale the columns stay those of the first count: coefficients keep their meaning.

    Raises `TooFewPersons` or `CategoryAbsent` with the variable's name, `NotConverged` where sites come and go without end.
    """
    setting, design, grid = spec.setting, spec.design, spec.grid
    entry, rows = spec.response.start is not None, float(setting.max_rows_per_site)
    asked = cohort.question(
        setting, spec.variables, spec.subgroup, outcome=spec.response.status, crosses=design.crosses, numbers=design.numbers
    )
    bare = spec.model(scaling(design, setting.dictionary))
    while watch.rounds < spec.most_rounds:
        counts: Aggregate | None = None
        if spec.local or grid is None:
            total = yield asked
            watch.saw(total)
        else:
            total, counts = yield asked, cox_steps.ask_grid_counts(bare, grid, spec.strata_count, rows, entry=entry)
            watch.saw(total, counts)
        facts = cohort.facts(total, asked, setting)
        require_events(facts, spec.response.status, setting)
        cohort.require_categories(facts, design, setting)
        model = before.model if before else spec.model(scaling(design, setting.dictionary, mean=facts.mean))
        if counts is None or grid is None:
            none, no_index = np.zeros(0), np.zeros(0, dtype=np.int64)
            return Tally(facts, model, Cells(no_index, no_index), no_index, none, none, none, none, total.stop_requested)
        require_unscreened(counts, grid, setting.minimum_persons, spec.response.time)
        number = {n: np.asarray(counts[n], dtype=np.float64) for n in cox_steps.leavers(entry)}
        if not spec.weights:
            return _on_grid(facts, model, number, number, stopped=total.stop_requested)
        total = yield cox_steps.ask_grid_weights(bare, grid, spec.strata_count, rows * spec.heaviest, entry=entry)
        if watch.saw(total) == facts.sites:
            weight = {n: np.asarray(total[f"{n}_weight"], dtype=np.float64) for n in number}
            return _on_grid(facts, model, number, weight, stopped=total.stop_requested)
    raise NotConverged(f"the sites of the Cox model {spec.name!r} changed in too many rounds")


def _on_grid(
    facts: Facts, model: dict[str, Any], number: Mapping[str, Floats], weight: Mapping[str, Floats], *, stopped: bool
) -> Tally:
    at_risk = persons_at_risk(number["events"], number["censored"], number.get("entered"))
    risk_weight = persons_at_risk(weight["events"], weight["censored"], weight.get("entered"))
    at = np.nonzero(number["events"] > 0)
    return Tally(
        facts=facts,
        model=model,
        cells=Cells(at[0].astype(np.int64), at[1].astype(np.int64)),
        deaths=np.rint(number["events"][at]).astype(np.int64),
        weight=weight["events"][at],
        at_risk=at_risk[at],
        risk_weight=risk_weight[at],
        all_at_risk=risk_weight.sum(axis=0),
        stopped=stopped,
    )


def null_likelihood(spec: CoxSpec, tally: Tally) -> float:
    """The log partial likelihood without covariates, from counts alone."""
    c = len(tally.cells)
    nothing = np.zeros((c, 0))
    sums = RiskSums(tally.risk_weight, nothing, nothing, tally.weight, nothing, nothing)
    return cox_sums.likelihood(sums, tally.deaths, tally.weight, np.zeros(0), np.zeros(0), spec.ties).value


def time_transforms(spec: CoxSpec, tally: Tally) -> Floats:
    """g at each cell's time for each transform, shape (transforms, c); times are ranked over all strata together."""
    assert spec.grid is not None
    times, index = np.unique(tally.cells.time, return_inverse=True)
    deaths = np.bincount(index, weights=tally.deaths).astype(np.int64)
    weight = np.bincount(index, weights=tally.weight).astype(np.float64)
    edges, at_risk = spec.grid.edges[times], tally.all_at_risk[times]
    return np.stack([transformed(t, edges, deaths, weight, at_risk)[index] for t in spec.transforms])
