"""FedBuff: buffered asynchronous training. A slow site holds nobody up, and what it learned from older weights still counts.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba. Federated learning with buffered asynchronous aggregation. AISTATS 2022,
algorithm 1. Sites compute at their own pace from the weights that they were given last. As soon as K of them are done, their
updates, each weighed by s(τ) = 1/√(1 + τ) for its age of τ versions, are added up in a secure sum among these K alone:

    weights + η · Σ s(τ_i)·w_i·update_i / Σ w_i        (w_i = 1 and Σ w_i = K where all sites weigh the same)

A round is a buffer. Buffers are arbitrary subsets of the sites, so exact ones are asked only of sites that permit their own
totals (`site_totals`), and the study says that it needs this; with differential privacy the noise hides who was in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fivefold.algorithms import fedavg
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, ask_update, cost, pseudo_gradient, train
from fivefold.algorithms.training_spec import TrainingSpec, parse_training, refuse_what_noise_cannot_protect
from fivefold.protocol.questions import Aggregate, Buffer, Snapshot, Sum
from fivefold.study.definition import Analysis


@dataclass(frozen=True)
class BuffSpec(TrainingSpec):
    """`rounds` counts buffers; `members` says how many sites fill one (K of the paper), `server_rate` is its η_g."""

    members: int = 0
    server_rate: float = 1.0

    @property
    def buffer(self) -> Buffer:
        return Buffer(self.members, ("update",))


def ask(frame: Frame, state: State, round: int) -> Sum:
    """FedAvg's question, as a buffer. The update counts for less the older it is; its weight w_i, and so the mean, does not."""
    assert isinstance(frame.spec, BuffSpec)
    exact = not frame.spec.private_unit
    return replace(ask_update(frame, state, round), buffer=frame.spec.buffer, needs=("site_totals",) if exact else ())


def learn(frame: Frame, state: State, total: Aggregate, round: int) -> State:
    """One step of the server along the mean of the buffer (algorithm 1, line 11)."""
    assert isinstance(frame.spec, BuffSpec)
    change = pseudo_gradient(frame, total, round)
    if frame.spec.private_unit == "person":  # divided by the persons of all sites, and the buffer holds some of these
        change = change * (len(frame.spec.setting.sites) / len(total.sites))
    return {"weights": np.asarray(state["weights"] + frame.spec.server_rate * change)}


def fedbuff(spec: BuffSpec, resume: Snapshot | None = None) -> Training:
    """The rounds of FedBuff: the count and each evaluation wait for all sites, an update for K of them."""
    result = yield from train(spec, Strategy(fedavg.begin, ask, learn, buffered=True), resume)
    n = len(spec.setting.sites)
    said = f"asynchronous: a round is a buffer of {spec.members} of {n} sites; the run's journal says who was in which"
    return replace(result, method=METHOD.name, notes=(*result.notes, said))


def parse(analysis: Analysis, setting: Setting) -> BuffSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("buffer", "server_rate", "site_totals"))
    refuse_what_noise_cannot_protect(spec, options, one_gradient=True)
    n = len(setting.sites)
    size = options.integer("buffer", max(3, n - 1), 3, max(n, 3))
    needed = options.choice("site_totals", ("needed", "refused"), "refused") == "needed"
    if setting.differential_privacy is None and not needed:
        options.fault(
            "buffers are arbitrary subsets of the sites, between whose exact sums each site's own total shows, and "
            "'site_totals' is not said to be needed",
            "Write `site_totals: needed` and ask each custodian to permit them, or give the study differential_privacy.",
        )
    if setting.differential_privacy is not None and needed:
        options.fault("'site_totals' is needed for exact sums alone", "Take it out: the noise hides who is in a buffer.")
    if spec.following is not None:
        options.fault("'clip' is adaptive, and the norms of a buffer are of several rounds", "Write a number.")
    if spec.patience:
        options.fault("'patience' waits for an evaluation after every few rounds, and each waits for all", "Take it out.")
    if "evaluate_every" not in options.given and not spec.private_unit:
        spec = replace(spec, evaluate_every=spec.rounds)
    server_rate = options.number("server_rate", 1.0, 1e-9, 1e3)
    return BuffSpec(**vars(spec), members=size, server_rate=server_rate)


def price(spec: BuffSpec) -> Cost:
    """An evaluation never travels with an update, which is asked of some sites only."""
    bounded = cost(spec)
    evaluations = 0 if not spec.evaluate_every else 2 + spec.rounds // spec.evaluate_every
    return replace(bounded, rounds=spec.rounds + (0 if spec.private_unit == "site" else 1) + evaluations)


METHOD = Method(
    name="fedbuff",
    title="Federated learning with buffered asynchronous aggregation",
    paper="Nguyen J, Malik K, Zhan H, Yousefpour A, Rabbat M, Malek M, Huba D. AISTATS 2022, algorithm 1",
    parse=parse,
    rounds=fedbuff,
    steps=fedavg.METHOD.steps,
    cost=price,
    protects=("person", "site"),
    trains=True,
    buffers=True,
)
