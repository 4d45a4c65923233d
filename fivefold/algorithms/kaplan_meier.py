"""Kaplan–Meier curves and the log-rank test over sites: one round of events and censored persons on the study's time grid.

Kaplan and Meier, JASA 53:457 (1958); Greenwood's variance; log-rank as in Klein and Moeschberger, Survival Analysis (2003).
On a grid of single times each site has to permit totals at events. On a coarser one all cells are screened, and a curve ends
before the first interval that is not known. With strata(site) the log-rank test compares persons within sites, and only
observed, expected and covariance of all sites together leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms import cohort
from fivefold.algorithms.cohort import Watch
from fivefold.algorithms.kaplan_meier_result import Counts, result
from fivefold.algorithms.kaplan_meier_spec import KaplanMeierSpec, cost, parse
from fivefold.algorithms.log_rank import log_rank_sums
from fivefold.algorithms.method import Method
from fivefold.algorithms.numerics import packed
from fivefold.algorithms.survival_grid import Floats, Ints, persons_at_risk, require_unscreened
from fivefold.algorithms.survival_rows import Spells, require_events, require_one_row_each, spells, strata_index
from fivefold.errors import TooFewPersons
from fivefold.protocol.questions import Aggregate, Array, Field, FieldKind, Permission, Rounds, Sum, site_step
from fivefold.study.formula import Survival
from fivefold.study.table import Table


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("kaplan_meier.counts")
def counts(table: Table, *, selection: Mapping[str, Any], shape: tuple[int, int, int]) -> Mapping[str, Array]:
    """Events, censored and late entries by (stratum, group, grid time), and persons without and with an event by group."""
    cases, times, cell = _cases(table, selection, shape)
    late = times.start >= 0
    return {
        "events": _counted(cell[times.event], times.stop[times.event], shape),
        "censored": _counted(cell[~times.event], times.stop[~times.event], shape),
        "group_outcome": _outcome(cell % shape[1], cases.person, times.event, shape[1]),
        **({"entered": _counted(cell[late], times.start[late], shape)} if selection["start"] else {}),
    }


@site_step("kaplan_meier.site_log_rank")
def site_log_rank(table: Table, *, selection: Mapping[str, Any], shape: tuple[int, int, int]) -> Mapping[str, Array]:
    """Persons without and with an event, expected events by group and the covariance of observed less expected, within the
    site's own strata."""
    _, times, cell = _cases(table, selection, shape)
    late = times.start >= 0
    events = _counted(cell[times.event], times.stop[times.event], shape)
    censored = _counted(cell[~times.event], times.stop[~times.event], shape)
    at_risk = persons_at_risk(events, censored, _counted(cell[late], times.start[late], shape))
    observed, expected, covariance = log_rank_sums(events, at_risk)
    rows = np.bincount(cell % shape[1], minlength=shape[1])
    outcome = np.column_stack([rows - observed, observed])
    return {"outcome": outcome, "expected": expected, "covariance": packed(covariance)}


def _cases(table: Table, selection: Mapping[str, Any], shape: tuple[int, int, int]) -> tuple[Table, Spells, Ints]:
    """Complete rows, their spells, and for each row stratum × groups + group."""
    cases = cohort.select(table, tuple(selection["variables"]), selection["subgroup"])
    response = Survival(selection["time"], selection["status"], selection["start"] or None)
    if selection["one_row_each"]:
        require_one_row_each(cases)
    group = strata_index(cases, tuple(selection["groups"]))
    stratum = strata_index(cases, tuple(selection["strata"]))
    return cases, spells(cases, response, selection["grid"]), stratum * shape[1] + group


def _outcome(group: Ints, person: Ints, event: npt.NDArray[np.bool_], groups: int) -> Ints:
    """Distinct persons of each group without and with an event, shape (groups, 2)."""
    everyone, some = (
        np.bincount(np.unique(np.column_stack([group[rows], person[rows]]), axis=0)[:, 0].astype(np.int64), minlength=groups)
        for rows in (np.ones_like(event), event)
    )
    return np.column_stack([everyone - some, some])


def _counted(cell: Ints, time: Ints, shape: tuple[int, int, int]) -> Floats:
    flat = np.bincount(cell * shape[2] + time, minlength=int(np.prod(shape)))
    return flat.reshape(shape).astype(np.float64)


# ---- where no row is ------------------------------------------------------------------------------------------------
def kaplan_meier(spec: KaplanMeierSpec) -> Rounds:
    """One round: the cohort, the counts on the grid, and the sites' own log-rank sums where sites are strata."""
    watch = Watch(spec.setting)
    crosses = (spec.groups,) if spec.groups else ()
    first = cohort.question(spec.setting, spec.variables, spec.subgroup, outcome=spec.response.status, crosses=crosses)
    asked = (first, ask_counts(spec), *([ask_site_log_rank(spec)] if spec.local and spec.tested else []))
    answers = yield asked
    watch.saw(*answers)
    facts = cohort.facts(answers[0], first, spec.setting)
    require_events(facts, spec.response.status, spec.setting)
    sizes = facts.counts[spec.groups].reshape(-1) if spec.groups else np.array([float(facts.persons)])
    if np.isnan(sizes).any():
        named = ", ".join(spec.groups)
        raise TooFewPersons(
            f"a group by {named} has fewer than {spec.setting.minimum_persons} persons over all sites", variable=spec.groups[0]
        )
    return result(spec, facts, sizes, read_counts(spec, answers[1], sizes), answers[2] if len(answers) > 2 else None, watch)


def ask_counts(spec: KaplanMeierSpec) -> Sum:
    """Plain counts where single times may be seen, screened cells on a coarser grid."""
    rows = float(spec.setting.max_rows_per_site)
    kind: FieldKind = "count" if spec.grid.event_level else "cell"
    names = ("events", "censored", *(("entered",) if spec.response.start else ()))
    fields = (*(Field(n, kind, rows, spec.shape) for n in names), Field("group_outcome", "cell", rows, (spec.shape[1], 2)))
    needs: tuple[Permission, ...] = ("event_totals",) if spec.grid.event_level else ()
    return Sum(counts, fields, {"selection": spec.selection(), "shape": spec.shape}, needs)


def ask_site_log_rank(spec: KaplanMeierSpec) -> Sum:
    rows, k = float(spec.setting.max_rows_per_site), spec.shape[1]
    fields = (
        Field("outcome", "cell", rows, (k, 2)),
        Field("expected", "real", rows * (1 + 1e-6), (k,)),
        Field("covariance", "real", rows, (k * (k + 1) // 2,)),
    )
    return Sum(site_log_rank, fields, {"selection": spec.selection(), "shape": spec.shape})


def read_counts(spec: KaplanMeierSpec, total: Aggregate, sizes: Floats) -> Counts:
    """Events, censored and at risk on the grid; at risk is NaN after the first cell of a group that is hidden."""
    events, censored = np.asarray(total["events"], dtype=np.float64), np.asarray(total["censored"], dtype=np.float64)
    entered = np.asarray(total["entered"], dtype=np.float64) if "entered" in total else None
    if entered is not None:
        require_unscreened({"entered": entered}, spec.grid, spec.setting.minimum_persons, spec.response.start or "")
    by_group = np.asarray(total["group_outcome"], dtype=np.float64)[:, 1]
    known = not np.isnan(events).any() and not np.isnan(censored).any()
    if known:
        strata = persons_at_risk(events, censored, entered)
        return Counts(events, strata, events.sum(axis=0), censored.sum(axis=0), strata.sum(axis=0), by_group)
    net = (events + censored - (entered if entered is not None else 0.0)).sum(axis=0)
    left = np.concatenate([np.zeros((len(net), 1)), np.cumsum(net, axis=-1)[:, :-1]], axis=-1)
    at_risk = (sizes - (entered.sum(axis=(0, 2)) if entered is not None else 0.0))[:, None] - left
    strata = at_risk[None] if len(events) == 1 else np.full_like(events, np.nan)  # the size of a stratum is not asked
    return Counts(events, strata, events.sum(axis=0), censored.sum(axis=0), at_risk, by_group)


METHOD = Method(
    name="kaplan_meier",
    title="Kaplan–Meier survival curves and log-rank test",
    paper="Kaplan and Meier, JASA 53:457-481 (1958); Mantel, Cancer Chemother. Rep. 50:163-170 (1966)",
    parse=parse,
    rounds=kaplan_meier,
    steps=(cohort.count, counts, site_log_rank),
    cost=cost,
)
