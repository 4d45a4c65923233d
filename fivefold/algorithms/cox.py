"""Cox's proportional hazards model over sites, through sums alone.

Cox, J. R. Stat. Soc. B 34:187 (1972); ties: Efron, JASA 72:557 (1977), or Breslow, Biometrics 30:89 (1974); the rest as in
Therneau and Grambsch, Modeling Survival Data (2000). Two ways to share the risk sets:

- *On the study's time grid* all sites make one risk set: a round brings S0, S1 and S2 of each time with an event.
- With *strata(site)* each site has its own risk sets; its score and information are complete, and only their sums leave.
"""

from __future__ import annotations

import numpy as np

from fivefold.algorithms import cohort, cox_diagnostics, cox_steps, cox_sums
from fivefold.algorithms.cohort import Watch
from fivefold.algorithms.cox_newton import Evaluated, move
from fivefold.algorithms.cox_result import Fit, result, unfinished
from fivefold.algorithms.cox_spec import CoxSpec, cost, parse
from fivefold.algorithms.cox_sums import Floats, RiskSums
from fivefold.algorithms.cox_tally import Tally, counted, null_likelihood, time_transforms
from fivefold.algorithms.method import Method
from fivefold.algorithms.numerics import unpacked
from fivefold.errors import CategoryAbsent, NotConverged
from fivefold.protocol.questions import Aggregate, Rounds, Sum


def cox(spec: CoxSpec) -> Rounds:
    """Count, climb, look back: one round for the cohort, one a Newton step, one for what needs the fitted model."""
    watch = Watch(spec.setting)
    tally = yield from counted(spec, watch, None)
    gamma, evaluations = np.zeros(spec.design.width), 0
    before: Evaluated | None = None
    covariance: Floats | None = None
    null: tuple[tuple[str, ...], float] = ((), float("nan"))
    while watch.rounds < spec.most_rounds and evaluations < spec.max_iterations:
        if tally.stopped:
            return unfinished(tally, watch)
        total = yield ask(spec, tally, gamma)
        if watch.saw(total) != tally.facts.sites:  # a site dropped or came back: count again and climb on from here
            tally, before = (yield from counted(spec, watch, tally)), None
            continue
        evaluations += 1
        now, sums, weight = evaluated(spec, tally, total, gamma)
        if weight <= 0:
            raise CategoryAbsent("no event happens on the time grid", variable=spec.response.status)
        if covariance is None:
            covariance = now.likelihood.information / weight
            null = (tally.facts.sites, now.likelihood.value)
        going = move(now, before, covariance, spec.design.columns)
        if not going.done:
            if total.stop_requested:
                return unfinished(tally, watch)
            gamma, before = going.gamma, now
            continue
        if not spec.local:
            null = (tally.facts.sites, null_likelihood(spec, tally))
        asked = looking_back(spec, tally, now, sums, weight, ask_null=null[0] != tally.facts.sites)
        answers = (yield tuple(asked.values())) if asked else ()
        if asked and watch.saw(*answers) != tally.facts.sites:
            tally, before = (yield from counted(spec, watch, tally)), None
            continue
        totals = dict(zip(asked, answers, strict=True))
        floor = float(totals["null"]["value"]) if "null" in totals else null[1]
        fit = Fit(tally, going.gamma, now.likelihood, going.variance, sums, floor, totals, evaluations)
        return result(spec, fit, watch)
    raise NotConverged(f"the Cox model {spec.name!r} did not converge in {evaluations} iterations")


def ask(spec: CoxSpec, tally: Tally, gamma: Floats) -> Sum:
    """The partial likelihood at gamma, whose columns are scaled to at most 1."""
    rows = float(spec.setting.max_rows_per_site)
    if spec.local:
        return cox_steps.ask_site_likelihood(tally.model, spec.ties, gamma, rows, spec.lightest, spec.heaviest)
    tied = tally.tied & (spec.ties == "efron")
    return cox_steps.ask_risk_sums(tally.model, tally.cells, tied, gamma, rows, spec.heaviest)


def evaluated(spec: CoxSpec, tally: Tally, total: Aggregate, gamma: Floats) -> tuple[Evaluated, RiskSums | None, float]:
    """The likelihood from its aggregate, the risk sums (on a grid), and the total weight of events."""
    if spec.local:
        information = unpacked(np.asarray(total["information"]), len(gamma))
        found = cox_sums.Likelihood(float(total["value"]), np.asarray(total["score"]), information)
        return Evaluated(gamma, found), None, float(total["event_weight"])
    sums = cox_steps.read_risk_sums(total, tally.tied & (spec.ties == "efron"))
    found = cox_sums.likelihood(sums, tally.deaths, tally.weight, np.asarray(total["event_sum"]), gamma, spec.ties)
    return Evaluated(gamma, found), sums, float(tally.weight.sum())


def looking_back(
    spec: CoxSpec, tally: Tally, now: Evaluated, sums: RiskSums | None, weight: float, *, ask_null: bool
) -> dict[str, Sum]:
    """What needs the fitted model, asked in one round: robust errors, proportional hazards, concordance, and the likelihood
    without covariates where the sites have changed since it was seen."""
    model, cells, gamma, rows = tally.model, tally.cells, now.gamma, float(spec.setting.max_rows_per_site)
    out: dict[str, Sum] = {}
    if sums is None:
        if spec.robust:
            out["robust"] = cox_steps.ask_site_score_squares(model, spec.ties, gamma, weight, rows)
        if spec.transforms:
            largest = spec.largest_transform
            out["trend"] = cox_steps.ask_site_event_trend(model, spec.ties, gamma, spec.transforms, largest, rows)
        if spec.concordance:
            out["concordance"] = cox_steps.ask_site_pairs(model, gamma, rows)
        if ask_null:
            out["null"] = ask(spec, tally, np.zeros_like(gamma))
        return out
    if spec.robust:
        hazard = cox_sums.hazard(sums, tally.deaths, tally.weight, spec.ties)
        out["robust"] = cox_steps.ask_score_squares(model, cells, gamma, hazard, weight, rows)
    if spec.transforms:
        out["trend"] = cox_steps.ask_event_trend(model, cells, time_transforms(spec, tally), len(gamma), rows)
    if spec.concordance:
        deviation = float(np.sqrt(gamma @ now.likelihood.information @ gamma / weight))
        mean = float(np.average(sums.s1 @ gamma / sums.s0, weights=tally.deaths)) - deviation**2
        edges = cox_diagnostics.bin_edges(mean, deviation, spec.concordance)
        out["concordance"] = cox_steps.ask_score_histogram(model, cells, gamma, edges, rows)
    return out


METHOD = Method(
    name="cox",
    title="Cox proportional hazards model",
    paper="Cox, J. R. Stat. Soc. B 34:187-220 (1972); Efron, JASA 72:557-565 (1977)",
    parse=parse,
    rounds=cox,
    steps=(
        cohort.count,
        cox_steps.grid_counts,
        cox_steps.grid_weights,
        cox_steps.risk_sums,
        cox_steps.score_squares,
        cox_steps.event_trend,
        cox_steps.score_histogram,
        cox_steps.site_likelihood,
        cox_steps.site_score_squares,
        cox_steps.site_event_trend,
        cox_steps.site_pairs,
    ),
    cost=cost,
)
