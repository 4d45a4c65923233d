"""The rounds of a federated training: count, then update after update, evaluated on the way; all of it sums.

What differs between methods is a `Strategy`: what a round asks, and what the aggregate does to the weights. The side without
rows sees the sum of updates and nothing of any site's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Facts, Floats, Watch, facts, question, require_outcome
from fivefold.algorithms.design import Scaling
from fivefold.algorithms.method import Cost
from fivefold.algorithms.training_clip import Joint, begun, joint, moved, remark
from fivefold.algorithms.training_metrics import Measured, better, fields, measured
from fivefold.algorithms.training_result import result_of
from fivefold.algorithms.training_rows import first_weights
from fivefold.algorithms.training_spec import TrainingSpec, scaled_columns
from fivefold.algorithms.training_steps import (
    evaluate,
    evaluate_persons,
    gradient_of_persons,
    local_update,
    noisy_steps,
    persons,
)
from fivefold.errors import NotConverged
from fivefold.protocol.questions import Aggregate, Array, Field, OwnNoise, Snapshot, Sum
from fivefold.protocol.results import Result

State = Mapping[str, Array]
"""What the side without rows keeps between rounds: `weights` (size,), and what a method's server needs beside them."""
TOGETHER = 4096
"""Up to this many weights, an evaluation travels with the next update: a trip costs more than wider numbers."""
ROUNDING = 1.000001


@dataclass(frozen=True)
class Frame:
    """What stays as it is over the rounds, all public: the columns' scaling, the numbers of persons and rows."""

    spec: TrainingSpec
    found: Facts | None
    persons: int
    rows: int
    constants: Scaling
    unit: tuple[float, float]

    @property
    def fit(self) -> dict[str, Any]:
        """The argument `fit` of every step: which rows, which columns, which model."""
        spec = self.spec
        return {
            "formula": spec.formula.text, "variables": spec.variables, "subgroup": spec.subgroup,
            "model": spec.model.as_arguments(), "centre": self.constants.centre, "scale": self.constants.scale,
            "unit": np.array(self.unit), "holdout": spec.holdout, "seed": spec.setting.seed,
        } | ({"by_content": True} if spec.private_unit == "person" else {})  # fmt: skip

    @property
    def local(self) -> dict[str, Any]:
        """The argument `local`: how a site descends, and how its update is weighted and bounded."""
        spec = self.spec
        return {
            "epochs": spec.local_epochs, "batch_size": spec.batch_size, "clip": spec.clip,
            "weighting": "site" if spec.private_unit == "site" else spec.weighting, "total_rows": self.rows,
        }  # fmt: skip

    @property
    def bound(self) -> float:
        """Of each element of a site's update."""
        return self.bound_of(Joint(self.spec.clip))

    def bound_of(self, own: Joint) -> float:
        return min(own.clip, self.spec.update_bound) * ROUNDING if own.clip else self.spec.update_bound


@dataclass(frozen=True)
class Strategy:
    """A method: what its server keeps beside the weights at the start; what a round asks; what the answer does to the state."""

    begin: Callable[[Frame, Floats], State]
    ask: Callable[[Frame, State, int], Sum]
    learn: Callable[[Frame, State, Aggregate, int], State]
    judge: Callable[[Frame, State, int], Sum] | None = None
    """The question that evaluates, where it is not `training.evaluate`."""
    both: Callable[[Frame, State, int], Sum] | None = None
    """One question that evaluates and then updates, where a site does both with what it keeps to itself."""
    buffered: bool = False
    """Whether an update is asked as a buffer: alone, and of some sites only."""


Training = Generator[Any, Any, Result]


def train(spec: TrainingSpec, strategy: Strategy, resume: Snapshot | None = None) -> Training:
    """All rounds. `resume` is a snapshot that an earlier generator of the same spec yielded."""
    watch = Watch(spec.setting)
    history: tuple[Measured, ...]
    if resume is None:
        frame = framed(spec, *(yield from _count(spec, watch)))
        model = spec.network()
        state = begun(spec, strategy.begin(frame, first_weights(model, spec.setting.seed)))
        done, history, best = 0, (), np.zeros(0)
    else:
        frame, state, done, history, best, watch = restored(spec, resume)
    together = spec.width <= TOGETHER and not spec.private_unit and not strategy.buffered
    while not watch.stop:
        over = done == spec.rounds or exhausted(spec, history)
        due = bool(spec.evaluate_every) and (done % spec.evaluate_every == 0 or over)
        due = due and not (history and history[-1].round == done)
        due = due and bool(done or not spec.private_unit)  # noise for the weights of the start would be paid for nothing
        judge = [(strategy.judge or _judge)(frame, state, done)] if due else []
        update = [] if over or (judge and not together) else [strategy.ask(frame, state, done + 1)]
        if not (judge or update):
            break
        if judge and update and strategy.both:
            judge = update = [strategy.both(frame, state, done + 1)]
        answers = yield ((*update, *judge) if judge is not update else (*update,))
        watch.saw(*answers, some=strategy.buffered and bool(update))
        if judge:
            history, best = remembered(history, best, measured(spec, answers[-1], done), state["weights"])
        if update and not exhausted(spec, history):
            state = moved(frame, state, strategy.learn(frame, state, answers[0], done + 1), answers[0])
            done += 1
            if done % spec.snapshot_every == 0 and done < spec.rounds:
                yield snapshot(frame, state, done, history, best, watch)
    if exhausted(spec, history):
        state = {**state, "weights": best}
    for _ in range(3):  # figures are of the sites of the last round
        if watch.stop or frame.found is None or watch.last == frame.found.sites:
            break
        found, people, _ = yield from _count(spec, watch)
        frame = replace(frame, found=found, persons=people)
    return result_of(frame, state, done, history, watch)


def exhausted(spec: TrainingSpec, history: Sequence[Measured]) -> bool:
    """Early stopping: `patience` evaluations in a row did not lower the aggregated loss."""
    return bool(spec.patience) and len(history) > 1 and len(history) - 1 - better(history) >= spec.patience


def remembered(
    history: tuple[Measured, ...], best: Floats, new: Measured, weights: Array
) -> tuple[tuple[Measured, ...], Floats]:
    """The history with one more evaluation, and the weights of the best one."""
    history = (*history, new)
    return history, np.asarray(weights) if better(history) == len(history) - 1 else best


def _count(spec: TrainingSpec, watch: Watch) -> Generator[Any, Any, tuple[Facts | None, int, int]]:
    """The first question: persons, rows and outcomes, so that thresholds apply; what noise cannot protect is not asked."""
    if spec.private_unit == "site":
        watch.last = spec.setting.sites
        return None, 0, len(spec.setting.sites)
    if spec.private_unit == "person":
        frame = framed(spec, None, 0, 0)
        asked = Field("persons", "persons", float(spec.setting.max_rows_per_site), (), 1.0)
        (total,) = yield (Sum(persons, (asked,), {"fit": frame.fit}),)
        watch.saw(total)
        n = max(int(total["persons"]), 1)
        return None, n, n
    outcome = spec.response if spec.task == "binary" else ""
    crosses = [(spec.response,)] if spec.task == "classes" else []
    count = question(spec.setting, spec.variables, spec.subgroup, outcome=outcome, crosses=crosses, numbers=spec.numbers)
    (total,) = yield (count,)
    watch.saw(total)
    found = facts(total, count, spec.setting)
    if spec.task == "binary":
        require_outcome(found, spec.response, spec.setting)
    return found, found.persons, found.rows


def framed(spec: TrainingSpec, found: Facts | None, people: int, rows: int) -> Frame:
    constants, unit = scaled_columns(spec, found)
    return Frame(spec, found, people, rows, constants, unit)


# ---- one round's question, and what its aggregate says ----------------------------------------------------------------
def ask_update(frame: Frame, state: State, round: int, mu: float = 0.0) -> Sum:
    """The question of FedAvg and its kin: a weighted local update; one sum of clipped gradients where persons are protected."""
    spec, d, own = frame.spec, len(state["weights"]), joint(frame, state)
    if spec.local_steps:
        return _ask_noisy_steps(frame, state, round)
    local = frame.local | ({"clip": own.clip, "count": own.factor} if own.factor else {})
    if spec.private_unit == "person":
        most = max(own.clip, own.factor / 2) * spec.setting.max_rows_per_site * ROUNDING
        asked = Field("update", "update", most, (d + own.more,), own.sensitivity)
        return Sum(gradient_of_persons, (asked,), {"weights": state["weights"], "fit": frame.fit, "local": local})
    arguments = {
        "weights": state["weights"], "round": round, "rate": spec.rate(round), "mu": mu, "fit": frame.fit, "local": local,
    }  # fmt: skip
    if spec.private_unit == "site":
        most = max(frame.bound_of(own), own.factor / 2 * ROUNDING)
        return Sum(local_update, (Field("update", "update", most, (d + own.more,), own.sensitivity),), arguments)
    return Sum(local_update, (Field("update", "update", frame.bound, (d,)), Field("weight", "update", 1.0)), arguments)


def _ask_noisy_steps(frame: Frame, state: State, round: int) -> Sum:
    """Local DP-SGD: the sum of the sites' updates, each of which holds all its noise."""
    spec = frame.spec
    own = OwnNoise(spec.local_steps, spec.sampling, spec.clip)
    asked = Field("update", "update", spec.update_bound, (len(state["weights"]),), own=own)
    expected = frame.persons / len(spec.setting.sites)
    local = {"rate": spec.rate(round), "expected": max(expected, 1.0), "bound": spec.update_bound}
    return Sum(noisy_steps, (asked,), {"weights": state["weights"], "fit": frame.fit, "local": local})


def pseudo_gradient(frame: Frame, total: Aggregate, round: int) -> Floats:
    """The mean update over the survivors: all that a server optimiser sees. Shape (size,)."""
    spec = frame.spec
    update = total["update"] if spec.following is None else total["update"][:-1]
    if spec.local_steps:
        return np.asarray(update / len(total.sites))
    if spec.private_unit == "person":
        return np.asarray(update * (spec.rate(round) / frame.persons))
    if spec.private_unit == "site":
        return np.asarray(update / len(total.sites))
    weight = float(total["weight"])
    if weight <= 0:
        raise NotConverged("no site has a row to train on", help="Hold out fewer persons.")
    return np.asarray(update / weight)


def _judge(frame: Frame, state: State, done: int) -> Sum:
    spec = frame.spec
    step = evaluate_persons if spec.private_unit else evaluate
    return Sum(step, fields(spec), {"weights": state["weights"], "fit": frame.fit, "bins": spec.bins})


# ---- checkpoints ------------------------------------------------------------------------------------------------------
def snapshot(frame: Frame, state: State, done: int, history: Sequence[Measured], best: Floats, watch: Watch) -> Snapshot:
    """All that the rest of a training needs, as plain values."""
    return Snapshot(
        {
            "done": done, "state": dict(state), "best": best, "history": tuple(vars(m) for m in history),
            "facts": None if frame.found is None else {**vars(frame.found), "counts": tuple(frame.found.counts.items())},
            "persons": frame.persons, "rows": frame.rows,
            "watch": {"rounds": watch.rounds, "numbers": watch.numbers, "last": watch.last, "missed": watch.missed},
        }
    )  # fmt: skip


def restored(spec: TrainingSpec, saved: Snapshot) -> tuple[Frame, State, int, tuple[Measured, ...], Floats, Watch]:
    """The inverse of `snapshot`."""
    it = saved.state
    found = it["facts"]
    if found is not None:
        names = {"counts": {tuple(k): v for k, v in found["counts"]}, "sites": tuple(found["sites"])}
        outcome = found["outcome"]
        found = Facts(**{**found, **names, "dropped": tuple(found["dropped"]), "outcome": tuple(outcome) if outcome else None})
    watch = Watch.of(spec.setting, **it["watch"])
    history = tuple(Measured(**m) for m in it["history"])
    return framed(spec, found, it["persons"], it["rows"]), dict(it["state"]), int(it["done"]), history, it["best"], watch


# ---- the price --------------------------------------------------------------------------------------------------------
def cost(spec: TrainingSpec, factor: int = 1) -> Cost:
    """Rounds and numbers a round, at most; an update is `factor` times as wide as the weights."""
    evaluations = 0 if not spec.evaluate_every else 2 + spec.rounds // spec.evaluate_every
    if spec.private_unit and spec.evaluate_every:  # every question costs: no more are announced than are asked
        evaluations = -(-spec.rounds // spec.evaluate_every)
    together = spec.width <= TOGETHER and not spec.private_unit
    rounds = spec.rounds + (0 if spec.private_unit == "site" else 1) + ((1 if evaluations else 0) if together else evaluations)
    judged = sum(f.size for f in fields(spec)) if spec.evaluate_every else 0
    count = 8 + len(spec.variables) + 2 * len(spec.numbers) + spec.model.outputs
    width = factor * spec.width + 1
    own = (spec.rounds, spec.local_steps, spec.sampling) if spec.local_steps else (0, 0, 1.0)
    return Cost(rounds, max(count, width + judged if together else max(width, judged)), remark(spec), *own)
