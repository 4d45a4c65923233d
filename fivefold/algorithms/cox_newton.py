"""Newton's method on the partial likelihood, one evaluation a round: step, halving, end, and what makes an end impossible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fivefold.algorithms.cox_sums import Floats, Likelihood
from fivefold.algorithms.design import Column
from fivefold.algorithms.numerics import Dependence, inverse_information
from fivefold.errors import Collinear, Separation

TOLERANCE = 1e-9
"""A step below this share of each standard error ends the fit; the step itself is still taken."""

STEEPEST = 6.0
"""The largest standard deviation of the linear predictor over the risk sets: exp(6) for one of them is no hazard ratio."""

FLAT, WALK, VANISHED = 1e-4, 0.05, 1e-3
"""Where a step promises a gain below FLAT and still moves a coefficient by WALK standard deviations of the linear predictor, or
an information has fallen below VANISHED of what it was at the start, the likelihood has no maximum."""


@dataclass(frozen=True)
class Evaluated:
    """A point and the likelihood there."""

    gamma: Floats
    likelihood: Likelihood


@dataclass(frozen=True)
class Move:
    """Where to evaluate next; `done` when the step to it is negligible. `variance` is the inverse information, empty after a
    halving."""

    gamma: Floats
    done: bool
    variance: Floats


def variance_of(information: Floats, columns: Sequence[Column]) -> Floats:
    """The inverse information. Raises `Collinear` with the columns that depend on each other."""
    found = inverse_information(information)
    if not isinstance(found, Dependence):
        return found
    column = columns[found.index]
    words = "does not vary among the persons at risk when events happen, so it has no hazard ratio"
    if found.on:
        others = ", ".join(repr(columns[i].name) for i in found.on)
        words = f"is determined by {others} among the persons at risk when events happen"
    raise Collinear(f"{column.name!r} {words}", variable=column.variables[-1])


def move(now: Evaluated, before: Evaluated | None, covariance: Floats, columns: Sequence[Column]) -> Move:
    """The next point. `covariance` (p, p) is that of the columns over the risk sets at the start. Raises `Collinear` or
    `Separation`.

    Where the likelihood fell since `before`, the step is halved. A likelihood that has all but stopped rising while a
    coefficient still walks is monotone (Therneau and Grambsch 2000, section 3.5): the coefficient has no finite estimate.
    """
    if before is not None and _fell(now.likelihood.value, before.likelihood.value):
        return Move((now.gamma + before.gamma) / 2, False, np.zeros((0, 0)))
    spread = np.sqrt(np.abs(np.diag(covariance)))
    try:
        variance = variance_of(now.likelihood.information, columns)
    except Collinear:
        if before is None:
            raise
        raise _separated(now.gamma * spread, columns) from None  # it was regular at the start: a coefficient runs away
    step = variance @ now.likelihood.score
    if before is not None and float(now.likelihood.score @ step) < FLAT:
        if float(np.max(np.abs(step) * spread)) > WALK:
            raise _separated(step * spread, columns)
        left = np.diag(now.likelihood.information) / np.diag(covariance)
        if float(left.min()) < VANISHED * float(left.max()):
            raise _separated(1.0 / left, columns)
    done = bool(np.all(np.abs(step) <= TOLERANCE * np.sqrt(np.diag(variance))))
    target = now.gamma + step
    deviation, so_far = (float(np.sqrt(abs(float(at @ covariance @ at)))) for at in (target, now.gamma))
    if deviation > STEEPEST:
        if so_far > 0.9 * STEEPEST:
            raise _separated(target * spread, columns)
        target = target * (STEEPEST / deviation)
    return Move(target, done, variance)


def _fell(value: float, before: float) -> bool:
    return not value >= before - 1e-9 * max(abs(before), 1.0)


def _separated(size: Floats, columns: Sequence[Column]) -> Separation:
    column = columns[int(np.argmax(np.abs(size)))]
    return Separation(
        f"the likelihood keeps rising as the coefficient of {column.name!r} grows, so it has no finite estimate: it separates "
        "those who have the event from those at risk",
        help="Merge categories, or take the variable out of the model.",
        variable=column.variables[-1],
    )
