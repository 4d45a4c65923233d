"""Personalised layers: sites share the body of a model and keep its head to themselves.

FedPer: Arivazhagan, Aggarwal, Singh, Choudhary, arXiv 1912.00818: body and head are trained together. FedRep: Collins, Hassani,
Mokhtari, Shakkottai, ICML 2021, algorithm 1: first the head with the body as it came, then the body with that head. The head
never leaves its site, so each site predicts with its own; evaluation adds up over sites, each with its own head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Floats
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.options import Options
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, cost, pseudo_gradient, train
from fivefold.algorithms.training_metrics import fields as measures
from fivefold.algorithms.training_rows import Part, Pull, clipped, first_weights, problem
from fivefold.algorithms.training_spec import TrainingSpec, parse_training
from fivefold.algorithms.training_steps import judged, run_locally, weight_of
from fivefold.models.model import Model, Weights, build, flat, named, positions
from fivefold.protocol.questions import STATE, Aggregate, Array, Field, Snapshot, Sum, site_step
from fivefold.study.definition import Analysis
from fivefold.study.table import Table


@dataclass(frozen=True)
class PersonalSpec(TrainingSpec):
    """`head_epochs` are FedRep's epochs of the head alone; 0 is FedPer."""

    head_epochs: int = 0


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("personalised.round", keeps_state=True)
def own_round(
    table: Table, *, weights: Array, round: int, rate: float, fit: Mapping[str, Any], local: Mapping[str, Any],
    personal: tuple[str, ...], train: bool, evaluate: bool, bins: int, state: Mapping[str, Array] | None = None,
) -> Mapping[str, Any]:  # fmt: skip
    """Evaluate the shared body with this site's own head, then train both; the change of the body leaves, the head stays."""
    model, rows, kept = problem(table, fit)
    own = positions(model.shapes, tuple(personal))
    whole = first_weights(model, int(fit["seed"]))
    whole[~own] = weights
    if state is not None:
        whole[own] = state["head"]
    answer: dict[str, Any] = judged(model, named(whole, model.shapes), kept, bins) if evaluate else {}
    if train:
        share = weight_of(rows, local)
        after = _trained(model, named(whole, model.shapes), rows, own, table.site, round, rate, fit, local) if share else whole
        answer |= {"update": share * clipped((after - whole)[~own], local["clip"]), "weight": np.asarray(share)}
        whole = after
    return answer | {STATE: {"head": whole[own]}}


def _trained(
    model: Model, start: Weights, rows: Part, own: Array, site: str, round: int, rate: float, fit: Mapping[str, Any],
    local: Mapping[str, Any],
) -> Floats:  # fmt: skip
    """FedPer: all weights at once. FedRep: the head for some epochs, then the body."""
    if not local["head_epochs"]:
        return flat(run_locally(model, start, rows, site, round, rate, fit, local, Pull())[0])
    head = run_locally(model, start, rows, site, round, rate, fit, {**local, "epochs": local["head_epochs"]}, Pull(free=own))
    return flat(run_locally(model, head[0], rows, site, round, rate, fit, local, Pull(free=~own))[0])


# ---- where no row is ------------------------------------------------------------------------------------------------
def begin(frame: Frame, weights: Floats) -> State:
    """The shared weights alone."""
    return {"weights": weights[~positions(frame.spec.network().shapes, frame.spec.personal)]}


def question(frame: Frame, state: State, round: int, *, train: bool, evaluate: bool) -> Sum:
    spec = frame.spec
    assert isinstance(spec, PersonalSpec)
    update = (Field("update", "update", frame.bound, (len(state["weights"]),)), Field("weight", "update", 1.0)) if train else ()
    arguments = {
        "weights": state["weights"], "round": round, "rate": spec.rate(round), "fit": frame.fit,
        "local": {**frame.local, "head_epochs": spec.head_epochs}, "personal": spec.personal, "train": train,
        "evaluate": evaluate, "bins": spec.bins,
    }  # fmt: skip
    return Sum(own_round, (*update, *(measures(spec) if evaluate else ())), arguments)


def ask(frame: Frame, state: State, round: int) -> Sum:
    return question(frame, state, round, train=True, evaluate=False)


def judge(frame: Frame, state: State, done: int) -> Sum:
    return question(frame, state, max(done, 1), train=False, evaluate=True)


def both(frame: Frame, state: State, round: int) -> Sum:
    return question(frame, state, round, train=True, evaluate=True)


def learn(frame: Frame, state: State, total: Aggregate, round: int) -> State:
    return {"weights": state["weights"] + pseudo_gradient(frame, total, round)}


def personalised(spec: PersonalSpec, resume: Snapshot | None = None) -> Training:
    """The rounds: the body as in FedAvg."""
    result = yield from train(spec, Strategy(begin, ask, learn, judge, both), resume)
    note = f"{', '.join(spec.personal)} stays at each site; the table holds the shared weights alone"
    return replace(result, method=METHOD.name, notes=(*result.notes, note))


def parse(analysis: Analysis, setting: Setting) -> PersonalSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("personal", "head_epochs"))
    if spec.private_unit:
        options.fault("personalised layers have no noise here", "Use fedavg or fedopt with differential privacy.")
    if spec.patience:
        options.fault("'patience' cannot bring back the heads that stay at the sites", "Take it out.")
    return PersonalSpec(
        **{**vars(spec), "personal": _personal(options, build(spec.model))},
        head_epochs=options.integer("head_epochs", 0, 0, 1000),
    )


def _personal(options: Options, model: Model) -> tuple[str, ...]:
    given = options.given.get("personal", list(model.head))
    names = list(model.shapes)
    if not isinstance(given, (list, tuple)) or not given or not set(given) <= set(names) or set(given) == set(names):
        options.fault(f"'personal' is {given!r}", f"Write some, but not all, of: {', '.join(names)}.")
    return tuple(n for n in names if n in given)


def price(spec: PersonalSpec) -> Cost:
    return cost(spec)


METHOD = Method(
    name="personalised",
    title="Personalised layers",
    paper="Arivazhagan MG et al. arXiv 1912.00818 (FedPer); Collins L et al. ICML 2021, algorithm 1 (FedRep)",
    parse=parse,
    rounds=personalised,
    steps=(count_step, own_round),
    cost=price,
    trains=True,
)
