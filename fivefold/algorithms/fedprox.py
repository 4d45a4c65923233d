"""FedProx: local training that is pulled back to where the round began, so that unlike sites do not drift apart.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith. Federated optimization in heterogeneous networks. MLSys 2020, equation 2: each site
descends F_i(w) + (mu / 2)·|w - w_round|².
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fivefold.algorithms import fedavg
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.method import Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, ask_update, train
from fivefold.algorithms.training_spec import TrainingSpec, parse_training, refuse_what_noise_cannot_protect
from fivefold.algorithms.training_steps import evaluate, local_update
from fivefold.protocol.questions import Snapshot, Sum
from fivefold.study.definition import Analysis


@dataclass(frozen=True)
class ProxSpec(TrainingSpec):
    """`mu` is the strength of the pull."""

    mu: float = 0.01


def ask(frame: Frame, state: State, round: int) -> Sum:
    """FedAvg's question with the pull mu."""
    assert isinstance(frame.spec, ProxSpec)
    return ask_update(frame, state, round, frame.spec.mu)


def fedprox(spec: ProxSpec, resume: Snapshot | None = None) -> Training:
    """The rounds of FedProx: the server does what FedAvg's does."""
    result = yield from train(spec, Strategy(fedavg.begin, ask, fedavg.learn), resume)
    return replace(result, method=METHOD.name)


def parse(analysis: Analysis, setting: Setting) -> ProxSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("mu",))
    refuse_what_noise_cannot_protect(spec, options, one_gradient=False)
    return ProxSpec(**vars(spec), mu=options.number("mu", 0.01, 0.0, 1e6))


METHOD = Method(
    name="fedprox",
    title="Federated averaging with a proximal term",
    paper="Li T, Sahu AK, Zaheer M, Sanjabi M, Talwalkar A, Smith V. MLSys 2020, equation 2",
    parse=parse,
    rounds=fedprox,
    steps=(count_step, local_update, evaluate),
    cost=fedavg.price,
    protects=("site",),
    trains=True,
)
