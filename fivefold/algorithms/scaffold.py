"""SCAFFOLD: each site keeps a control variate that takes its own drift out of its local steps.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh. SCAFFOLD: stochastic controlled averaging for federated learning. ICML 2020,
algorithm 1, option II. A site's own variate c_i stays at the site; the sum of their changes travels as a sum like the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Floats
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, cost, pseudo_gradient, train
from fivefold.algorithms.training_rows import Pull, clipped, problem
from fivefold.algorithms.training_spec import TrainingSpec, parse_training, refuse_what_noise_cannot_protect
from fivefold.algorithms.training_steps import evaluate, run_locally, weight_of
from fivefold.models.model import flat, named
from fivefold.protocol.questions import STATE, Aggregate, Array, Field, Snapshot, Sum, site_step
from fivefold.study.definition import Analysis
from fivefold.study.table import Table


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("scaffold.local_update", keeps_state=True)
def local_update(
    table: Table, *, weights: Array, control: Array, round: int, rate: float, fit: Mapping[str, Any], local: Mapping[str, Any],
    state: Mapping[str, Array] | None = None,
) -> Mapping[str, Any]:  # fmt: skip
    """K steps along gradient - c_i + c; then c_i⁺ = c_i - c + (weights - after) / (K·rate). Leaves: both changes, weighted."""
    own = np.zeros(len(weights)) if state is None else np.asarray(state["control"])
    model, rows, _ = problem(table, fit)
    share = weight_of(rows, local)
    update = changed = np.zeros(len(weights))
    if share:
        start = named(np.asarray(weights), model.shapes)
        after, steps = run_locally(model, start, rows, table.site, round, rate, fit, local, Pull(drift=control - own))
        update = clipped(flat(after) - weights, local["clip"])
        changed = -control - update / (steps * rate)
    return {
        "update": share * update, "control": share * changed, "weight": np.asarray(share),
        STATE: {"control": own + changed},
    }  # fmt: skip


# ---- where no row is ------------------------------------------------------------------------------------------------
def begin(frame: Frame, weights: Floats) -> State:
    return {"weights": weights, "control": np.zeros(len(weights))}


def ask(frame: Frame, state: State, round: int) -> Sum:
    """Update and change of the control variate, both in the ring of updates. At least one step is made, so the change is at
    most the update's bound over the rate, and |c|."""
    d, rate = len(state["weights"]), frame.spec.rate(round)
    widest = frame.bound / rate + float(np.abs(state["control"]).max(initial=0.0))
    fields = (
        Field("update", "update", frame.bound, (d,)),
        Field("control", "update", widest * 1.000001, (d,)),
        Field("weight", "update", 1.0),
    )
    arguments = {
        "weights": state["weights"], "control": state["control"], "round": round, "rate": rate, "fit": frame.fit,
        "local": frame.local,
    }  # fmt: skip
    return Sum(local_update, fields, arguments)


def learn(frame: Frame, state: State, total: Aggregate, round: int) -> State:
    """c moves by the survivors' changes over *all* sites' weight, as in the paper; weights by the survivors' mean."""
    everyone = 1.0 if frame.spec.weighting == "rows" else float(len(frame.spec.setting.sites))
    return {
        "weights": state["weights"] + pseudo_gradient(frame, total, round),
        "control": state["control"] + total["control"] / everyone,
    }


def scaffold(spec: TrainingSpec, resume: Snapshot | None = None) -> Training:
    """The rounds of SCAFFOLD."""
    result = yield from train(spec, Strategy(begin, ask, learn), resume)
    return replace(result, method=METHOD.name)


def parse(analysis: Analysis, setting: Setting) -> TrainingSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting)
    if spec.private_unit:
        options.fault(
            "scaffold's control variates are releases of their own, which no noise protects here",
            "Use fedavg or fedopt with differential privacy.",
        )
    refuse_what_noise_cannot_protect(spec, options, one_gradient=False)
    return spec


def price(spec: TrainingSpec) -> Cost:
    return cost(spec, factor=2)


METHOD = Method(
    name="scaffold",
    title="Stochastic controlled averaging",
    paper="Karimireddy SP, Kale S, Mohri M, Reddi S, Stich S, Suresh AT. ICML 2020, algorithm 1, option II",
    parse=parse,
    rounds=scaffold,
    steps=(count_step, local_update, evaluate),
    cost=price,
    trains=True,
)
