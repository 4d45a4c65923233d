"""FedOpt: the mean update is a pseudo-gradient, and an optimiser at the server follows it: momentum, Adam, Yogi or Adagrad.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan. Adaptive federated optimization. ICLR 2021, algorithm 2.
Momentum is FedAvgM (Hsu, Qi, Brown, arXiv 1909.06335). The server sees the aggregated pseudo-gradient and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fivefold.algorithms import fedavg
from fivefold.algorithms.cohort import Floats
from fivefold.algorithms.method import Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, pseudo_gradient, train
from fivefold.algorithms.training_spec import TrainingSpec, parse_training, refuse_what_noise_cannot_protect
from fivefold.protocol.questions import Aggregate, Snapshot
from fivefold.study.definition import Analysis

OPTIMISERS = ("adam", "yogi", "adagrad", "momentum")


@dataclass(frozen=True)
class OptSpec(TrainingSpec):
    """`tau` keeps the adaptive step finite where a weight hardly moves; `server_rate` is eta of the paper."""

    optimiser: str = "adam"
    server_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


def begin(frame: Frame, weights: Floats) -> State:
    """First moment 0, second moment tau²."""
    assert isinstance(frame.spec, OptSpec)
    return {"weights": weights, "first": np.zeros(len(weights)), "second": np.full(len(weights), frame.spec.tau**2)}


def learn(frame: Frame, state: State, total: Aggregate, round: int) -> State:
    """One step of the server's optimiser along the pseudo-gradient."""
    assert isinstance(frame.spec, OptSpec)
    return step(frame.spec, state, pseudo_gradient(frame, total, round))


def step(spec: OptSpec, state: State, change: Floats) -> State:
    """Algorithm 2 of the paper: element by element, so that every replay gives the same bits."""
    squares, second = change * change, state["second"]
    if spec.optimiser == "momentum":
        first = spec.beta1 * state["first"] + change
        return {"weights": state["weights"] + spec.server_rate * first, "first": first, "second": second}
    first = spec.beta1 * state["first"] + (1 - spec.beta1) * change
    if spec.optimiser == "adagrad":
        second = second + squares
    elif spec.optimiser == "yogi":
        second = second - (1 - spec.beta2) * squares * np.sign(second - squares)
    else:
        second = spec.beta2 * second + (1 - spec.beta2) * squares
    moved = state["weights"] + spec.server_rate * first / (np.sqrt(second) + spec.tau)
    return {"weights": moved, "first": first, "second": second}


def fedopt(spec: OptSpec, resume: Snapshot | None = None) -> Training:
    """The rounds of FedOpt: sites do what FedAvg's do."""
    result = yield from train(spec, Strategy(begin, fedavg.ask, learn), resume)
    return replace(result, method=METHOD.name)


def parse(analysis: Analysis, setting: Setting) -> OptSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("optimiser", "server_rate", "beta1", "beta2", "tau"))
    refuse_what_noise_cannot_protect(spec, options, one_gradient=True)
    optimiser = options.choice("optimiser", OPTIMISERS, "adam")
    return OptSpec(
        **vars(spec),
        optimiser=optimiser,
        server_rate=options.number("server_rate", 1.0 if optimiser == "momentum" else 0.1, 1e-9, 1e3),
        beta1=options.number("beta1", 0.0 if optimiser == "adagrad" else 0.9, 0.0, 0.9999),
        beta2=options.number("beta2", 0.99, 0.0, 0.999999),
        tau=options.number("tau", 1e-3, 1e-12, 1.0),
    )


METHOD = Method(
    name="fedopt",
    title="Federated optimisation with an adaptive server",
    paper="Reddi S, Charles Z, Zaheer M, Garrett Z, Rush K, Konečný J, Kumar S, McMahan B. ICLR 2021, algorithm 2",
    parse=parse,
    rounds=fedopt,
    steps=fedavg.METHOD.steps,
    cost=fedavg.price,
    protects=("person", "site"),
    trains=True,
)
