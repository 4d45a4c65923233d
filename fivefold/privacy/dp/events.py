"""What a release costs: a privacy event, its Rényi curve, how curves add up, and the ε that they come to at a δ.

A curve is an array of Rényi divergences, one for each order of `ORDERS`; curves of releases add up (Mironov, 2017, "Rényi
differential privacy", Proposition 1), also where each release was chosen after seeing the ones before (Feldman & Zrnic, 2021,
"Individual privacy accounting via a Rényi filter"). At integer orders the discrete Gaussian's curve for a shift by whole grid
steps equals the continuous one's (Canonne, Kamath & Steinke, 2020, "The discrete Gaussian for differential privacy"),
hence `ORDERS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]
Mechanism = Literal["discrete_gaussian", "sampled_gaussian", "exact"]

ORDERS: tuple[int, ...] = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 768, 1024, 2048, 4096)
"""Every order to 64 serves ε of about 1 and more at the usual δ; the larger ones serve a small ε."""


@dataclass(frozen=True)
class Event:
    """One kind of release, `count` times over.

    `discrete_gaussian`: `noise_multiplier` z is the summed noise's standard deviation over the L2 sensitivity of the whole
    answer; `extra` (a ρ of concentrated differential privacy, so α·extra at order α) is what the release costs beyond a single
    Gaussian's α/(2z²): that noise was added up from several sites' shares (Kairouz, Liu & Steinke, 2021).
    `sampled_gaussian`: the same at one site alone, on persons of whom each was drawn with probability `sampling`, unseen.
    `exact`: a sum without noise, for which no ε is finite.
    """

    mechanism: Mechanism
    noise_multiplier: float = 0.0
    count: int = 1
    extra: float = 0.0
    sampling: float = 1.0

    def __post_init__(self) -> None:
        if self.mechanism not in get_args(Mechanism):
            raise ValueError(f"there is no mechanism {self.mechanism!r}")
        if type(self.count) is not int or self.count < 1:
            raise ValueError(f"an event happens once or more, not {self.count} times")
        if not (math.isfinite(self.extra) and self.extra >= 0):
            raise ValueError(f"an event's extra cost is finite and 0 or more, not {self.extra}")
        if not 0 < self.sampling <= 1 or (self.sampling < 1 and self.mechanism != "sampled_gaussian"):
            raise ValueError(f"{self.mechanism}: a sampling of {self.sampling} makes no sense")
        noisy = self.mechanism != "exact"
        if not math.isfinite(self.noise_multiplier) or (self.noise_multiplier > 0) != noisy:
            raise ValueError(f"{self.mechanism}: a noise multiplier of {self.noise_multiplier} makes no sense")


def curve(event: Event) -> Curve:
    """Rényi divergence of an event at each of `ORDERS`: count·α·(1/(2z²) + extra); infinite for an exact sum."""
    orders = np.array(ORDERS, dtype=np.float64)
    if event.mechanism == "exact":
        return np.full(len(ORDERS), np.inf)
    if event.sampling < 1:
        return event.count * _sampled(event.sampling, event.noise_multiplier)
    return event.count * orders * (0.5 / event.noise_multiplier / event.noise_multiplier + event.extra)


@lru_cache(maxsize=256)
def _sampled(q: float, z: float) -> Curve:
    """Divergence of one Poisson-sampled Gaussian: log Σ_k C(α, k)·(1-q)^(α-k)·q^k·exp((k² - k)/(2z²))/(α - 1).

    Mironov, Talwar & Zhang (2019), "Rényi differential privacy of the sampled Gaussian mechanism", section 3.3. It holds for
    the discrete Gaussian and shifts by whole grid steps: the moments E[(N_Δ/N_0)^k] = exp((k² - k)·Δ²/(2σ²)) are the continuous
    ones where k·Δ is whole, since the sum of the weights is the same around every integer; the reflection x → Δ - x, which
    swaps the two distributions, takes integers to integers, so the other direction costs no more (their theorem 5).
    Rounded up by more than the logarithms of factorials lose.
    """
    from scipy.special import gammaln, logsumexp

    out = np.empty(len(ORDERS))
    for i, order in enumerate(ORDERS):
        k = np.arange(order + 1.0)
        chosen = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        terms = chosen + (order - k) * math.log1p(-q) + k * math.log(q) + (k * k - k) * (0.5 / z / z)
        lost = 2.0**-49 * (gammaln(order + 1) + order * (abs(math.log1p(-q)) + 1))
        whole = float(logsumexp(terms))
        out[i] = (max(whole, 0.0) + lost + 2.0**-46 * max(whole, 0.0)) / (order - 1)
    out.setflags(write=False)
    return out


def composed(curves: Iterable[Curve]) -> Curve:
    """The curve of all releases together: their sum, order by order; of none, zero."""
    total = np.zeros(len(ORDERS))
    for one in curves:
        total = total + one
    return total


def epsilon_of(total: Curve, delta: float) -> float:
    """The least ε, over all orders, at which a curve gives (ε, δ)-differential privacy; infinite if there is none.

    Canonne, Kamath & Steinke (2020), Proposition 12: ε = R(α) + log(1 − 1/α) − log(δα)/(α − 1). A divergence so small that the
    total variation stays below δ (δ² > 1 − exp(−R), Bretagnolle & Huber, 1979) costs no ε at all. Raises `ValueError` unless
    0 < δ < 1.
    """
    orders, offset = np.array(ORDERS, dtype=np.float64), _offset(delta)
    if total.shape != orders.shape or np.any(np.isnan(total)) or np.any(total < 0):
        raise ValueError("a curve has one divergence, 0 or more, for each order")
    if np.any(delta * delta + np.expm1(-total) > 0):
        return 0.0
    return max(0.0, float(np.min(total + offset)))


def allowance(epsilon: float, delta: float) -> Curve:
    """The largest divergence at each order that still converts to (ε, δ): the cap of a Rényi filter. Negative where an order
    cannot reach it. Raises `ValueError` unless ε > 0 is finite and 0 < δ < 1."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"ε must be finite and above 0, not {epsilon}")
    return epsilon - _offset(delta)


def to_plain(event: Event) -> dict[str, Any]:
    """An event as plain values, for storage."""
    sampled = {} if event.sampling == 1 else {"sampling": float(event.sampling)}
    return sampled | {
        "mechanism": event.mechanism,
        "noise_multiplier": float(event.noise_multiplier),
        "count": event.count,
        "extra": float(event.extra),
    }


def from_plain(value: Mapping[str, Any]) -> Event:
    """An event from what `to_plain` gave. Raises `ValueError` for anything else."""
    try:
        numbers = float(value["noise_multiplier"]), int(value["count"]), float(value.get("extra", 0.0))
        return Event(value["mechanism"], *numbers, float(value.get("sampling", 1.0)))
    except (KeyError, TypeError) as error:
        raise ValueError("not a privacy event") from error


def _offset(delta: float) -> Curve:
    if not 0 < delta < 1:
        raise ValueError(f"δ must lie between 0 and 1, not {delta}")
    orders = np.array(ORDERS, dtype=np.float64)
    return np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
