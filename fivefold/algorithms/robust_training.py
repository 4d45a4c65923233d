"""Robust training: the server takes a median, trimmed mean, Krum or Bulyan of the sites' updates, which it sees one by one.

Yin et al. (ICML 2018), Blanchard et al. (NeurIPS 2017), El Mhamdi et al. (ICML 2018); the rules are in `robust.py`. They cost
what a secure sum protects, so each site's policy must name `robust.local_update/1` under `steps` and its custodian permit
`site_totals`. `rule: mean` is there to compare with: one false site pulls it anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fivefold.algorithms import fedavg, robust
from fivefold.algorithms.cohort import Floats
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, cost, train
from fivefold.algorithms.training_rows import Pull, clipped, problem
from fivefold.algorithms.training_spec import TrainingSpec, parse_training
from fivefold.algorithms.training_steps import evaluate, run_locally
from fivefold.errors import NotConverged
from fivefold.models.model import flat, named
from fivefold.protocol.questions import Aggregate, Array, Field, Gather, Snapshot, site_step
from fivefold.study.definition import Analysis
from fivefold.study.table import Table

RULES = ("median", "trimmed_mean", "krum", "bulyan", "mean")


@dataclass(frozen=True)
class RobustSpec(TrainingSpec):
    """`rule` is one of `RULES`; `false` is the most sites that may lie."""

    rule: str = "median"
    false: int = 1


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("robust.local_update", leaves="reply")
def local_update(
    table: Table, *, weights: Array, round: int, rate: float, fit: Mapping[str, Any], local: Mapping[str, Any]
) -> Mapping[str, Array]:
    """The change of the weights at this site, clipped and not weighted; nothing where it has no row."""
    model, rows, _ = problem(table, fit)
    if not len(rows):
        return {"update": np.zeros(len(weights))}
    after, _ = run_locally(model, named(np.asarray(weights), model.shapes), rows, table.site, round, rate, fit, local, Pull())
    return {"update": clipped(flat(after) - weights, local["clip"])}


# ---- where no row is ------------------------------------------------------------------------------------------------
def ask(frame: Frame, state: State, round: int) -> Any:
    weights = state["weights"]
    arguments = {
        "weights": weights, "round": round, "rate": frame.spec.rate(round), "fit": frame.fit, "local": frame.local,
    }  # fmt: skip
    return Gather(local_update, (Field("update", "update", frame.bound, (len(weights),)),), arguments)


def learn(frame: Frame, state: State, replies: Aggregate, round: int) -> State:
    """weights + the robust mean of the updates, shape (sites, size). Raises `NotConverged` where too few sites answered."""
    assert isinstance(frame.spec, RobustSpec)
    try:
        return {"weights": np.asarray(state["weights"] + combined(frame.spec, replies["update"]))}
    except ValueError as error:
        raise NotConverged(str(error), help="Wait for more sites, or write a smaller `false`.") from error


def combined(spec: RobustSpec, updates: Array) -> Floats:
    if spec.rule == "mean":
        return np.asarray(updates.mean(axis=0))
    if spec.rule == "median":
        return robust.coordinate_median(updates)
    rules = {"trimmed_mean": robust.trimmed_mean, "krum": robust.krum, "bulyan": robust.bulyan}
    return rules[spec.rule](updates, spec.false)


def least(rule: str, false: int) -> int:
    """The sites without which the rule promises nothing."""
    return {"trimmed_mean": 2 * false + 1, "krum": 2 * false + 3, "bulyan": 4 * false + 3, "median": 2 * false + 1}.get(rule, 1)


def training(spec: RobustSpec, resume: Snapshot | None = None) -> Training:
    """A round is one gathering."""
    result = yield from train(spec, Strategy(fedavg.begin, ask, learn, buffered=True), resume)
    note = f"robust ({spec.rule}): each site's own update was seen in each round, as these sites have permitted by name"
    return replace(result, method=METHOD.name, notes=(*result.notes, note))


def parse(analysis: Analysis, setting: Setting) -> RobustSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("rule", "false"))
    if setting.differential_privacy is not None:
        options.fault("single sites' updates are seen, and no noise protects them", "Use fedavg or fedopt instead.")
    rule, n = options.choice("rule", RULES, "median"), len(setting.sites)
    false = options.integer("false", 1, 0, max(n, 1))
    if n < least(rule, false):
        options.fault(
            f"{rule} bears {false} false sites among {least(rule, false)} or more, and there are {n}",
            "Write a smaller `false`, or another `rule`.",
        )
    return RobustSpec(**vars(spec), rule=rule, false=false)


def price(spec: RobustSpec) -> Cost:
    """An evaluation never travels with replies that are not summed."""
    evaluations = 0 if not spec.evaluate_every else 2 + spec.rounds // spec.evaluate_every
    return replace(cost(spec), rounds=spec.rounds + 1 + evaluations)


METHOD = Method(
    name="robust",
    title="Robust aggregation of single sites' updates",
    paper="Yin D, Chen Y, Kannan R, Bartlett P. ICML 2018; Blanchard P et al. NeurIPS 2017; El Mhamdi EM et al. ICML 2018",
    parse=parse,
    rounds=training,
    steps=(count_step, local_update, evaluate),
    cost=price,
    trains=True,
    gathers=True,
)
