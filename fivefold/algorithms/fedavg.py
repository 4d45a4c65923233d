"""FedAvg: sites train on their own rows for a while, and the weighted mean of their updates moves the shared weights.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas. Communication-efficient learning of deep networks from decentralized data.
AISTATS 2017, algorithm 1. With one full-batch step a round it is gradient descent on the pooled rows.

Under differential privacy of persons, a round is one sum of clipped gradients (Abadi et al., CCS 2016), or `local_steps` noisy
steps at each site; of sites, clipped updates with equal weights (McMahan et al., ICLR 2018).
"""

from __future__ import annotations

from dataclasses import replace

from fivefold.algorithms.cohort import Floats
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, ask_update, cost, pseudo_gradient, train
from fivefold.algorithms.training_spec import TrainingSpec, parse_training, refuse_what_noise_cannot_protect, with_noisy_steps
from fivefold.algorithms.training_steps import (
    evaluate,
    evaluate_persons,
    gradient_of_persons,
    local_update,
    noisy_steps,
    persons,
)
from fivefold.protocol.questions import Aggregate, Snapshot, Sum
from fivefold.study.definition import Analysis


def begin(frame: Frame, weights: Floats) -> State:
    return {"weights": weights}


def ask(frame: Frame, state: State, round: int) -> Sum:
    """Local epochs from the shared weights: w_i·(weights after - weights), and w_i."""
    return ask_update(frame, state, round)


def learn(frame: Frame, state: State, total: Aggregate, round: int) -> State:
    """weights + Σ w_i·update_i / Σ w_i."""
    return {"weights": state["weights"] + pseudo_gradient(frame, total, round)}


def fedavg(spec: TrainingSpec, resume: Snapshot | None = None) -> Training:
    """The rounds of FedAvg."""
    result = yield from train(spec, Strategy(begin, ask, learn), resume)
    return replace(result, method=METHOD.name)


def parse(analysis: Analysis, setting: Setting) -> TrainingSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("local_steps", "sampling"))
    spec = with_noisy_steps(spec, options)
    refuse_what_noise_cannot_protect(spec, options, one_gradient=True)
    return spec


def price(spec: TrainingSpec) -> Cost:
    return cost(spec)


METHOD = Method(
    name="fedavg",
    title="Federated averaging",
    paper="McMahan B, Moore E, Ramage D, Hampson S, Agüera y Arcas B. AISTATS 2017, algorithm 1",
    parse=parse,
    rounds=fedavg,
    steps=(count_step, persons, local_update, gradient_of_persons, noisy_steps, evaluate, evaluate_persons),
    cost=price,
    protects=("person", "site"),
    trains=True,
)
