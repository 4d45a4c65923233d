"""What a training asks of a site: a local update of the weights, and sums that say how good the weights are.

An update is weighted before it leaves: w·(local weights - weights asked about), with w the site's share of all rows (at most 1,
public total), and w itself beside it, so that survivors alone make the mean. Both lie in the ring of updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fivefold.algorithms.training_clip import counted
from fivefold.algorithms.training_rows import Part, Pull, chance, clipped, descend, norm, of_persons, person_gradients, problem
from fivefold.models.model import Floats, Model, Weights, flat, named
from fivefold.privacy.dp.noisy_steps import NoisySteps
from fivefold.protocol.questions import Array, site_step
from fivefold.study.table import Table

SURE = 1e-7
"""Probabilities are kept this far from 0 and 1 where a loss is reported: one row cannot carry the sum."""


@site_step("training.local_update")
def local_update(
    table: Table, *, weights: Array, round: int, rate: float, mu: float, fit: Mapping[str, Any], local: Mapping[str, Any]
) -> Mapping[str, Array]:
    """The weighted update of one round: epochs of descent from `weights` (size,), pulled back to them by mu (FedProx)."""
    model, rows, _ = problem(table, fit)
    share = weight_of(rows, local)
    update, norms = np.zeros(len(weights)), np.zeros(0)  # a site without rows is in no count
    if share:
        start = named(np.asarray(weights), model.shapes)
        after, _ = run_locally(model, start, rows, table.site, round, rate, fit, local, Pull(mu))
        norms = np.array([norm(flat(after) - weights)])
        update = share * clipped(flat(after) - weights, local["clip"])
    update = counted(update, norms, local["clip"], local.get("count", 0.0))
    return {"update": update} if local["weighting"] == "site" else {"update": update, "weight": np.asarray(share)}


@site_step("training.person_gradients")
def gradient_of_persons(
    table: Table, *, weights: Array, fit: Mapping[str, Any], local: Mapping[str, Any]
) -> Mapping[str, Array]:
    """Minus the sum of every person's clipped gradient (Abadi et al., CCS 2016, algorithm 1, all persons in every round)."""
    model, rows, _ = problem(table, fit)
    total, norms = person_gradients(model, named(np.asarray(weights), model.shapes), rows, local["clip"])
    return {"update": counted(-total, norms, local["clip"], local.get("count", 0.0))}


@site_step("training.noisy_steps", draws=True)
def noisy_steps(
    table: Table, *, weights: Array, fit: Mapping[str, Any], local: Mapping[str, Any], noise: NoisySteps
) -> Mapping[str, Array]:
    """What a site's own noisy steps make of `weights` (size,), as a difference: local DP-SGD (Abadi et al., CCS 2016, algorithm
    1). `noise` draws the persons, clips and adds the noise; `local` has the rate and the public number of persons that a site
    is expected to have. Every person's gradient is computed alone, so that no bit of it hangs on who else was drawn."""
    model, rows, _ = problem(table, fit)
    own, start = of_persons(rows), np.asarray(weights, dtype=np.float64)
    rate, now = float(local["rate"]) / (noise.own.sampling * float(local["expected"])), start
    for _ in range(noise.own.steps):
        here = named(now, model.shapes)
        chosen = [own[i] for i in np.flatnonzero(noise.drawn(len(own)))]
        now = now - rate * noise.total(
            (flat(model.loss_and_gradient(here, rows.x[c], rows.y[c])[1]) for c in chosen), len(start)
        )
    return {"update": np.clip(now - start, -local["bound"], local["bound"])}


@site_step("training.persons")
def persons(table: Table, *, fit: Mapping[str, Any]) -> Mapping[str, Array]:
    """The persons that train: one number, of which one person changes 1."""
    _, rows, _ = problem(table, fit)
    return {"persons": np.asarray(np.unique(rows.person).size)}


def weight_of(rows: Part, local: Mapping[str, Any]) -> float:
    """A site's weight: its share of all rows, or 1 where all sites weigh the same; 0 without rows."""
    if not len(rows):
        return 0.0
    return min(1.0, len(rows) / float(local["total_rows"])) if local["weighting"] == "rows" else 1.0


def run_locally(
    model: Model, start: Weights, rows: Part, site: str, round: int, rate: float, fit: Mapping[str, Any],
    local: Mapping[str, Any], pull: Pull,
) -> tuple[dict[str, Floats], int]:  # fmt: skip
    """`descend` with the options of a question."""
    rng = chance(int(fit["seed"]), site, round)
    epochs, batch = int(local["epochs"]), int(local["batch_size"])
    return descend(model, start, rows, epochs=epochs, batch_size=batch, rate=float(rate), rng=rng, pull=pull)


@site_step("training.evaluate")
def evaluate(table: Table, *, weights: Array, fit: Mapping[str, Any], bins: int) -> Mapping[str, Array]:
    """Sums over the rows kept for evaluation: persons, rows, loss, rows predicted rightly; with two classes also persons by
    outcome, and by outcome and score."""
    model, _, rows = problem(table, fit)
    return judged(model, named(np.asarray(weights), model.shapes), rows, bins)


def judged(model: Model, weights: Weights, rows: Part, bins: int) -> dict[str, Array]:
    """The answer of `evaluate`. A person's score is the mean over the person's rows, the outcome that of any row."""
    task = model.spec.task
    predicted = model.predict(weights, rows.x) if len(rows) else np.zeros((0, 1))
    answer: dict[str, Array] = {
        "persons": np.asarray(np.unique(rows.person).size),
        "rows": np.asarray(len(rows)),
        "loss": np.asarray(losses(task, predicted, rows.y).sum()),
    }
    if task != "regression":
        answer["right"] = np.asarray(int((decided(task, predicted) == rows.y).sum()))
    if task == "binary":
        scored, outcome = by_person(rows, predicted[:, 0] if len(rows) else np.zeros(0))
        answer["outcome"] = np.array([np.sum(outcome == 0), np.sum(outcome == 1)])
        if bins:
            answer["scores_without"], answer["scores_with"] = histogram(scored, outcome, bins)
    return answer


@site_step("training.evaluate_persons")
def evaluate_persons(table: Table, *, weights: Array, fit: Mapping[str, Any], bins: int) -> Mapping[str, Array]:
    """One field, of which a person changes one cell by 1: persons by outcome and score, or (many classes) wrong and right."""
    model, _, rows = problem(table, fit)
    task = model.spec.task
    predicted = model.predict(named(np.asarray(weights), model.shapes), rows.x) if len(rows) else np.zeros((0, 1))
    if task == "binary":
        return {"scores": histogram(*by_person(rows, predicted[:, 0]), bins)}
    share, _ = by_person(rows, (decided(task, predicted) == rows.y).astype(np.float64))
    return {"right": np.array([np.sum(share <= 0.5), np.sum(share > 0.5)])}


def losses(task: str, predicted: Floats, y: Floats) -> Floats:
    """The loss of each row, shape (rows,), bounded: squared error / 2 (at most `WORST`), or minus the log of a probability."""
    if not len(y):
        return np.zeros(0)
    if task == "regression":
        return np.minimum(np.square(predicted[:, 0] - y) / 2, WORST["regression"])
    if task == "binary":
        chance_of = np.where(y == 1, predicted[:, 0], 1 - predicted[:, 0])
    else:
        chance_of = predicted[np.arange(len(y)), y.astype(np.int64)]
    return np.asarray(-np.log(np.clip(chance_of, SURE, 1.0)))


WORST = {"regression": 1e4, "binary": 16.2, "classes": 16.2}
"""The largest loss of a row that a sum may hold."""


def decided(task: str, predicted: Floats) -> Floats:
    """The predicted class of each row."""
    return (predicted[:, 0] >= 0.5).astype(np.float64) if task == "binary" else predicted.argmax(axis=1).astype(np.float64)


def by_person(rows: Part, values: Floats) -> tuple[Floats, Floats]:
    """Of each person: the mean of the values, and whether any row has the outcome."""
    _, index = np.unique(rows.person, return_inverse=True)
    count = np.bincount(index)
    outcome = (np.bincount(index, weights=rows.y) > 0).astype(np.float64) if len(index) else np.zeros(0)
    return (np.bincount(index, weights=values) / count if len(index) else np.zeros(0)), outcome


def histogram(score: Floats, outcome: Floats, bins: int) -> Array:
    """Persons without and with the outcome in equal bins of the score on [0, 1]: shape (2, bins)."""
    at = np.clip((score * bins).astype(np.int64), 0, bins - 1)
    return np.bincount(outcome.astype(np.int64) * bins + at, minlength=2 * bins).reshape(2, bins)
