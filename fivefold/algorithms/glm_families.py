"""Gaussian, binomial and Poisson with their canonical links: means, weights, deviance, and public bounds of each.

McCullagh and Nelder (1989), tables 2.1 and 2.3. Deviance and log-likelihood are for single observations (a binomial response is
0 or 1), as in statsmodels. A row's weight multiplies its score, information, deviance and log-likelihood (section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEEPEST_MEAN = 1000.0
"""A Poisson mean above this multiple of the response's range is cut there, and the row counted: no fit ends in such a place."""


@dataclass(frozen=True)
class Bounds:
    """The largest absolute values of one row: residual, weight, deviance, and the part of the likelihood that only y enters."""

    residual: float
    weight: float
    deviance: float
    saturated: float


@dataclass(frozen=True)
class Family:
    """`evaluate(y, eta, most)` gives mean, weight and deviance of each row (rows,) and the number of rows whose mean was cut;
    `saturated(y)` is each row's log-likelihood in a perfect fit; `bounds(largest y, largest |eta|)` is public."""

    name: str
    link: Callable[[float], float]
    evaluate: Callable[[Floats, Floats, float], tuple[Floats, Floats, Floats, int]]
    saturated: Callable[[Floats], Floats]
    bounds: Callable[[float, float], Bounds]
    ratio: str
    """What exp(coefficient) is called; "" where it means nothing."""


def _gaussian(y: Floats, eta: Floats, most: float) -> tuple[Floats, Floats, Floats, int]:
    return eta, np.ones_like(eta), np.square(y - eta), 0


def _binomial(y: Floats, eta: Floats, most: float) -> tuple[Floats, Floats, Floats, int]:
    decay = np.exp(-np.abs(eta))
    mu = np.where(eta >= 0, 1.0, decay) / (1.0 + decay)
    weight = decay / (1.0 + decay) ** 2
    # -2 log-likelihood of y in {0, 1}; log1p keeps it exact where the fit is close.
    deviance = 2.0 * (np.log1p(decay) + np.where(y > 0, np.maximum(-eta, 0.0), np.maximum(eta, 0.0)))
    return mu, weight, deviance, 0


def _poisson(y: Floats, eta: Floats, most: float) -> tuple[Floats, Floats, Floats, int]:
    ceiling = np.log(_most_mean(most))
    cut = eta > ceiling
    eta = np.minimum(eta, ceiling)
    mu = np.exp(eta)
    log_y = np.log(np.where(y > 0, y, 1.0))
    deviance = 2.0 * (np.where(y > 0, y * (log_y - eta), 0.0) - (y - mu))
    return mu, mu, deviance, int(cut.sum())


def _most_mean(most: float) -> float:
    return STEEPEST_MEAN * max(most, 1.0)


def _poisson_saturated(y: Floats) -> Floats:
    from scipy.special import gammaln

    return np.asarray(np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0)), 0.0) - y - gammaln(y + 1.0))


def _poisson_bounds(most: float, eta: float) -> Bounds:
    mean = float(np.exp(min(eta, np.log(_most_mean(most)))))
    high = max(most, 1.0)
    logs = high * (abs(float(np.log(high))) + 2.0)
    return Bounds(high + mean, mean, 2.0 * (logs + high * eta + high + mean), 2.0 * logs + 1.0)


FAMILIES = {
    "gaussian": Family(
        "gaussian", lambda mean: mean, _gaussian, np.zeros_like,
        lambda most, eta: Bounds(most + eta, 1.0, (most + eta) ** 2, 1.0), "",
    ),
    "binomial": Family(
        "binomial", lambda mean: float(np.log(mean / (1 - mean))), _binomial, np.zeros_like,
        lambda most, eta: Bounds(1.0, 0.25, 2.0 * (eta + 1.0), 1.0), "odds_ratio",
    ),
    "poisson": Family(
        "poisson", lambda mean: float(np.log(mean)), _poisson, _poisson_saturated, _poisson_bounds, "rate_ratio",
    ),
}  # fmt: skip


def log_likelihood(family: str, deviance: float, saturated: float, rows: float) -> float | None:
    """The log-likelihood by statsmodels' convention: for a Gaussian at its maximum-likelihood variance (None if that is 0).

    `rows` is the sum of frequency weights, where there are such; `saturated` of a Gaussian is what precision weights add."""
    if family == "gaussian":
        if deviance <= 0:
            return None
        return float(saturated - rows / 2 * (np.log(2 * np.pi * deviance / rows) + 1.0))
    return saturated - deviance / 2
