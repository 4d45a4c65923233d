"""Does a model remember its persons? Attacks on membership, and what its predictions give away by their form.

An attack guesses from a model's answers alone who was trained on. Its power is the area under its ROC curve: the chance that
it thinks a member likelier than somebody held out; 0.5 is chance. Two are played. `loss`: who has a small loss is taken for a
member (Yeom et al., "Privacy risk in machine learning", CSF 2018). `scores`: the worst case of sacroml (Smith et al., 2022):
the attacker knows who most members are, learns from their sorted probabilities, and is tried on the rest; here by nearest
neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SURE, CLEAR = 0.55, 0.6
"""An attack succeeds where its area is surely above the one, or above the other and surely above chance."""
FEWEST, LEARNING = 10, 20
"""Persons on either side without whom an attack says nothing, and without whom there is too little to learn from."""
MOST = 2_000
"""Persons on either side that the attacker learns from and is tried on; drawn where there are more."""
FOLDS = 5
DIGITS = 6
"""Predictions that agree to so many decimals are the same."""


@dataclass(frozen=True)
class Power:
    """The area under an attack's ROC curve with its 95 % interval."""

    attack: str
    auc: float
    low: float
    high: float

    @property
    def succeeds(self) -> bool:
        return self.low > SURE or (self.auc > CLEAR and self.low > 0.5)


@dataclass(frozen=True)
class Answers:
    """What a model says of some persons: `predicted` (persons, outputs), `loss` and `outcome` (persons,)."""

    predicted: Floats
    loss: Floats
    outcome: Floats

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, persons: npt.NDArray[Any]) -> Answers:
        return Answers(self.predicted[persons], self.loss[persons], self.outcome[persons])


def attacks(members: Answers, others: Answers, *, classes: bool, seed: int = 0) -> tuple[Power, ...]:
    """The power of each attack; none where either side has fewer than `FEWEST` persons. `classes`: predictions are
    probabilities (of a number there are no scores to learn from, and only the loss is tried, as with few persons)."""
    fewer = min(len(members), len(others))
    if fewer < FEWEST:
        return ()
    rng = np.random.Generator(np.random.Philox(key=seed))
    members, others = (a.take(rng.permutation(len(a))[:MOST]) for a in (members, others))
    by_loss = _power("loss", [(-members.loss, -others.loss)])
    if not classes or fewer < LEARNING:
        return (by_loss,)
    return by_loss, worst_case(sorted_scores(members.predicted), sorted_scores(others.predicted))


def sorted_scores(predicted: Floats) -> Floats:
    """The probabilities of each person from the largest down, shape (persons, classes); two of one output."""
    whole = np.column_stack([predicted, 1 - predicted]) if predicted.shape[1] == 1 else predicted
    return np.asarray(-np.sort(-whole, axis=1))


def worst_case(members: Floats, others: Floats) -> Power:
    """The attack by scores, shape (persons, features) each, in random order: in each fold the share of members among the
    nearest of all other folds. Members and others count the same, however many there are of each."""
    folds: list[tuple[Floats, Floats]] = []
    for fold in range(FOLDS):
        inside, outside = np.arange(len(members)) % FOLDS == fold, np.arange(len(others)) % FOLDS == fold
        known = np.concatenate([members[~inside], others[~outside]])
        weight = np.repeat([1 / max((~inside).sum(), 1), 1 / max((~outside).sum(), 1)], [(~inside).sum(), (~outside).sum()])
        is_member = np.arange(len(known)) < (~inside).sum()
        scale = [np.sort(column) for column in known.T]
        shares = (_ranked(known, scale), is_member * weight, ~is_member * weight)
        a, b = (_share(_ranked(tried, scale), *shares) for tried in (members[inside], others[outside]))
        folds.append((a, b))
    return _power("scores", folds)


def flags(everybody: Answers, *, classes: bool, threshold: int) -> tuple[str, ...]:
    """What the model's form would tell of these persons, by rule, after sacroml's structural attack. Most models have one:
    a prediction that hangs on a number is hardly ever shared.

    `k-anonymity`: fewer than `threshold` persons share a prediction. `class-disclosure`: so many or more share one, and the
    outcome with it. `smallest-class`: an outcome has fewer persons.
    """
    if not len(everybody):
        return ()
    _, group = np.unique(np.round(everybody.predicted, DIGITS), axis=0, return_inverse=True)
    group = np.asarray(group).reshape(-1)
    found, size = [], np.bincount(group)
    if size.min() < threshold:
        found.append("k-anonymity")
    if classes:
        low, high = np.full(len(size), np.inf), np.full(len(size), -np.inf)
        np.minimum.at(low, group, everybody.outcome)
        np.maximum.at(high, group, everybody.outcome)
        if np.any((low == high) & (size >= threshold)):
            found.append("class-disclosure")
        if np.unique(everybody.outcome, return_counts=True)[1].min() < threshold:
            found.append("smallest-class")
    return tuple(found)


def _power(attack: str, folds: list[tuple[Floats, Floats]]) -> Power:
    """The mean area over folds, with the variance of DeLong, DeLong and Clarke-Pearson (Biometrics 1988)."""
    areas, variances = [], []
    for members, others in folds:
        m, n = len(members), len(others)
        ranks = _ranks(np.concatenate([members, others]))
        beaten = (ranks[:m] - _ranks(members)) / n  # of each member, the share of others who look less like one
        beating = (ranks[m:] - _ranks(others)) / m
        areas.append(beaten.mean())
        variances.append(beaten.var(ddof=1) / m + beating.var(ddof=1) / n)
    auc, half = float(np.mean(areas)), 1.96 * math.sqrt(sum(variances)) / len(folds)
    return Power(attack, auc, auc - half, auc + half)


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, the mean of theirs for equal values."""
    _, at, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[at])


def _ranked(values: Floats, scale: list[Floats]) -> Floats:
    """Where each value lies among the known ones, in [0, 1], column by column: an attack must not hang on the scale."""
    places = [
        (np.searchsorted(s, v, "left") + np.searchsorted(s, v, "right")) / (2 * len(s))
        for v, s in zip(values.T, scale, strict=True)
    ]
    return np.stack(places, axis=1)


def _share(tried: Floats, known: Floats, members: Floats, others: Floats) -> Floats:
    """The share of members among the nearest of the known, shape (tried,), of all that are as near as the last of them."""
    nearest = min(len(known), max(10, int(1.5 * math.sqrt(len(known)))))
    out = np.empty(len(tried))
    for i, row in enumerate(tried):
        distance = np.square(known - row).sum(axis=1)
        near = distance <= np.partition(distance, nearest - 1)[nearest - 1]
        m, n = members[near].sum(), others[near].sum()
        out[i] = m / (m + n)
    return out
