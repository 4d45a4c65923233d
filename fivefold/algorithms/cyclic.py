"""Cyclic weight transfer: the weights travel from site to site, each trains them on its own rows and hands them on.

Chang, Balachandar, Lam, Yi, Brown, Beers, Rosen, Rubin, Kalpathy-Cramer. Distributed deep learning networks among institutions
for medical imaging. JAMIA 25:945, 2018. In its turn a site's own update is the whole sum, so everybody sees it: each site's
policy and approval must permit `site_totals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fivefold.algorithms import fedavg
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, cost, train
from fivefold.algorithms.training_rows import Pull, clipped, problem
from fivefold.algorithms.training_spec import TrainingSpec, parse_training
from fivefold.algorithms.training_steps import evaluate, run_locally
from fivefold.models.model import flat, named
from fivefold.protocol.questions import Aggregate, Array, Field, Snapshot, Sum, site_step
from fivefold.study.definition import Analysis
from fivefold.study.table import Table


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("cyclic.local_update")
def local_update(
    table: Table, *, weights: Array, turn: str, round: int, rate: float, fit: Mapping[str, Any], local: Mapping[str, Any]
) -> Mapping[str, Array]:
    """The change of the weights at the site whose turn it is; nothing at all others."""
    model, rows, _ = problem(table, fit)
    if table.site != turn or not len(rows):
        return {"update": np.zeros(len(weights))}
    after, _ = run_locally(model, named(np.asarray(weights), model.shapes), rows, table.site, round, rate, fit, local, Pull())
    return {"update": clipped(flat(after) - weights, local["clip"])}


# ---- where no row is ------------------------------------------------------------------------------------------------
def ask(frame: Frame, state: State, round: int) -> Sum:
    """One turn, in the order of the study file, of the sites that have answered the first question."""
    assert frame.found is not None
    sites, weights = frame.found.sites, state["weights"]
    arguments = {
        "weights": weights, "turn": sites[(round - 1) % len(sites)], "round": round, "rate": frame.spec.rate(round),
        "fit": frame.fit, "local": frame.local,
    }  # fmt: skip
    return Sum(local_update, (Field("update", "update", frame.bound, (len(weights),)),), arguments, ("site_totals",))


def learn(frame: Frame, state: State, total: Aggregate, round: int) -> State:
    """The weights as the site hands them on; as they were, where it did not answer."""
    return {"weights": state["weights"] + total["update"]}


def cyclic(spec: TrainingSpec, resume: Snapshot | None = None) -> Training:
    """A round is one turn."""
    result = yield from train(spec, Strategy(fedavg.begin, ask, learn), resume)
    note = "in each round the update of one site was seen, as these sites have permitted"
    return replace(result, method=METHOD.name, notes=(*result.notes, note))


def parse(analysis: Analysis, setting: Setting) -> TrainingSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting)
    if spec.private_unit:
        options.fault("a turn shows one site's update, which no noise protects", "Use fedavg or fedopt instead.")
    return spec


def price(spec: TrainingSpec) -> Cost:
    return cost(spec)


METHOD = Method(
    name="cyclic",
    title="Cyclic weight transfer",
    paper="Chang K, Balachandar N, Lam C, et al. JAMIA 25:945, 2018",
    parse=parse,
    rounds=cyclic,
    steps=(count_step, local_update, evaluate),
    cost=price,
    trains=True,
)
