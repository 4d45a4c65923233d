"""Each site's share of the noise: its grid, its deviation, and that the ring has room for it. All from public values.

A question has k fields with L2 sensitivities Δ_f. The summed noise of field f has the deviation z·√k·Δ_f, so that all fields
together cost what one Gaussian of multiplier z does (Σ Δ_f²/(z²·k·Δ_f²) = 1/z²). With n sites in the signed study, of which d
may drop out and c may collude, a site adds a discrete Gaussian of variance z²·k·Δ_f²/(n - d - c): the honest ones among any n
- d survivors already suffice, whatever the others add (Kairouz, Liu & Steinke, 2021, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from fivefold.errors import StudyInvalid
from fivefold.privacy.dp.discrete_gaussian import sample
from fivefold.privacy.dp.rounding import after_conditional, after_nearest
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, add_into, zeros
from fivefold.protocol.questions import Array, Field, Noise

LEAST = 4.0
"""Steps of the grid in the deviation of one site's share: below, a sum of shares is no longer close to a discrete Gaussian."""
FINE = 32
"""Bits of the deviation of a share, in steps, where the ring has room: what rounding adds to the sensitivity is then
nothing."""
SUMMING = -44
"""A step may add up its persons in doubles, in any order: the error of such a sum counts to the sensitivity with 2^-44 of the
field's bound, 512 units in the last place (pairwise or blocked addition keeps to that; a step that adds one by one puts its
numbers on a grid first, so that its sums are exact). Casacuberta, Shoemate, Vadhan & Wagaman (CCS 2022) play what else
happens."""
WRAP = 40
"""A round's total leaves the ring with a probability below 2^-40."""


@dataclass(frozen=True)
class Sharing:
    """Who adds noise: `multiplier` z, `unit`, n sites of the signed study, d drop-outs and c colluders."""

    multiplier: float
    unit: Literal["person", "site"]
    sites: int
    dropouts: int
    colluders: int

    @property
    def honest(self) -> int:
        """Shares that are certain to be in every total, and unknown to everybody: n - d - c. Raises `StudyInvalid` below 1."""
        left = self.sites - self.dropouts - self.colluders
        if left < 1:
            raise StudyInvalid(
                f"of {self.sites} sites {self.dropouts} may drop out and {self.colluders} collude, so no noise is certain",
                help="Lower dropouts or colluders, or add sites.",
            )
        return left


def noisy(fields: Sequence[Field], sharing: Sharing) -> tuple[Field, ...]:
    """The fields of a question, each with the `Noise` that every site adds to it. A field without sensitivity makes all stay as
    they are: then no site answers. Raises `StudyInvalid` where a share would be below 4 steps of any grid that fits the
    ring."""
    if any(f.sensitivity is None for f in fields):  # also where the site's step adds the noise itself
        return tuple(fields)
    ring = RING32 if fields and all(f.kind == "update" for f in fields) else RING128
    numbers = sum(f.size for f in fields)
    return tuple(replace(f, noise=_noise(f, len(fields), numbers, ring, sharing)) for f in fields)


def _noise(f: Field, k: int, numbers: int, ring: Ring, sharing: Sharing) -> Noise:
    assert f.sensitivity is not None
    if not (math.isfinite(f.sensitivity) and f.sensitivity > 0):
        raise StudyInvalid(f"the sensitivity of {f.name!r} is not above 0", variable=f.name)
    scale = sharing.multiplier * math.sqrt(k / sharing.honest)
    room = (1 << (ring.bits - 1)) - 1
    tail = math.sqrt(2 * math.log(2.0) * (WRAP + 1) + 2 * math.log(max(numbers, 1)))
    # The first guess may be a step too fine for the ring; each turn makes the grid twice as coarse.
    exponent = FINE - math.frexp(scale * f.sensitivity)[1]
    while True:
        sensitivity = _after(f, math.ldexp(f.sensitivity, exponent), exponent, sharing.unit)
        share = scale * sensitivity
        if share < LEAST:
            raise StudyInvalid(
                f"the noise on {f.name!r} would be below {LEAST:g} steps of the finest grid that the sum's ring holds",
                help="Raise noise_multiplier, or lower the bound of what is asked.",
                variable=f.name,
            )
        limit = math.floor(Fraction(f.bound) * Fraction(2) ** exponent) + 1
        if sharing.unit == "site":
            limit = min(limit, math.floor(sensitivity) + 1)
        allowance = math.ceil(tail * math.sqrt(sharing.sites) * share)
        if sharing.sites * limit + allowance <= room:
            return Noise(exponent, share, sensitivity, limit, allowance)
        exponent -= 1


def _after(f: Field, sensitivity: float, exponent: int, unit: str) -> float:
    if unit == "site":
        return after_conditional(sensitivity, f.size)
    return after_nearest(sensitivity + math.ldexp(f.bound, exponent + SUMMING) * math.sqrt(f.size), f.size)


def share_of(noise: Noise, size: int, key: bytes) -> npt.NDArray[np.int64]:
    """One site's share for a field: `size` draws, in steps of the grid."""
    return sample(Fraction(noise.share) ** 2, size, key)


def add_share(part: Array, drawn: npt.NDArray[np.int64], ring: Ring) -> None:
    """Add whole numbers to ring elements, in place, modulo the ring."""
    addend = zeros(len(drawn), ring)
    if ring.limbs == 1:
        addend[:] = drawn.astype(np.uint64).astype(np.uint32)
    else:
        addend[:, 0] = drawn.view(np.uint64)
        addend[:, 1] = (drawn >> np.int64(63)).view(np.uint64)
    add_into(part, addend, ring)


def deviation(noise: Noise, sites: int) -> float:
    """The standard deviation of the noise in a total of that many sites, in the field's own unit."""
    return math.ldexp(noise.share * math.sqrt(sites), -noise.exponent)
