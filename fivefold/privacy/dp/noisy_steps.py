"""Local DP-SGD: steps of descent at one site, each on a secret sample of its persons, each with all its noise at once.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang. Deep learning with differential privacy. CCS 2016, algorithm 1, with
persons in the place of examples. Every person is drawn with probability q for itself; the drawn ones' gradients are clipped to
C in the L2 norm and cut off to whole steps of a grid, one by one, so that a person moves the sum by a vector of integers of
norm at most C; a discrete Gaussian of deviation z·C is added. Everything after that is post-processing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fivefold.privacy.dp.discrete_gaussian import Stream, sample
from fivefold.privacy.dp.rounding import Floats, clipped
from fivefold.protocol.questions import OwnNoise

BITS = 26
"""The clip has 2^25 to 2^26 steps of the grid: sums over up to 2^26 persons are exact in doubles and in integers."""
MARGIN = 1 + 2.0**-30
"""Covers what the norm of a long vector loses in floating point."""


class NoisySteps:
    """The steps of one answer. `key` (32 bytes) follows from the site's secret and all that makes the answer what it is: the
    same answer again draws the same persons and the same noise. `taken` counts the steps; no more are given than are paid for.
    """

    def __init__(self, own: OwnNoise, multiplier: float, key: bytes) -> None:
        self.own, self.taken = own, 0
        self._multiplier, self._key = multiplier, key
        self._exponent = BITS - math.frexp(own.clip)[1]

    @property
    def finished(self) -> bool:
        return self.taken == self.own.steps

    def drawn(self, persons: int) -> npt.NDArray[np.bool_]:
        """Who is in the next step, shape (persons,): each with probability q, or less by at most 2^-53."""
        words = Stream(self._of("persons")).words(persons) >> np.uint64(11)
        return np.asarray(words < np.uint64(math.floor(self.own.sampling * 2.0**53)))

    def total(self, gradients: Iterable[Floats], size: int) -> Floats:
        """The noisy sum of the drawn persons' clipped gradients, shape (size,), and on to the next step. A gradient that is not
        finite counts as 0. Raises `ValueError` beyond the last step."""
        if self.taken >= self.own.steps:
            raise ValueError("a step that nobody paid for")
        total = np.zeros(size, dtype=np.int64)
        for gradient in gradients:
            total += self.bounded(gradient)
        deviation = Fraction(self._multiplier) * Fraction(math.ldexp(self.own.clip * MARGIN, self._exponent))
        total += sample(deviation**2, size, self._of("noise"))
        self.taken += 1
        return np.ldexp(total.astype(np.float64), -self._exponent)

    def bounded(self, gradient: Floats) -> npt.NDArray[np.int64]:
        """A person's gradient in whole steps of the grid, cut off towards zero, of a norm of at most C."""
        if not np.all(np.isfinite(gradient)):
            return np.zeros(gradient.shape, dtype=np.int64)
        return np.trunc(np.ldexp(clipped(gradient, self.own.clip), self._exponent)).astype(np.int64)

    def _of(self, purpose: str) -> bytes:
        return hmac.digest(self._key, f"fivefold/noisy-steps/1/{purpose}/{self.taken}".encode(), hashlib.sha256)
