"""How rows spread over simulated clients: how many each one holds, and with which outcomes.

A client's part follows from the study's seed and its own number alone. So a million clients cost no more than those that are
looked at, and two runs see the same ones. Clients draw for themselves, as in Hsu, Qi and Brown (arXiv 1909.06335): where all of
them together hold more rows than there are, two may hold the same row. Only the natural partition gives each row to one client.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fivefold.errors import SimulationInvalid

Kind = Literal["iid", "dirichlet", "label", "quantity", "natural"]
EXAMPLES = "iid, dirichlet:0.3, label:2, quantity:0.5, natural, natural:VARIABLE"
MOST_ROWS = 100
"""A client holds at most so many times the usual number of rows."""


@dataclass(frozen=True)
class Partition:
    """`parameter`: of `dirichlet` the concentration, of `label` the number of outcomes at a client, of `quantity` the shape of
    the gamma law of sizes. `variable`: of `natural` the one whose values are clients (`person`: each person; empty: each
    site)."""

    kind: Kind = "iid"
    parameter: float = 0.0
    variable: str = ""

    def __str__(self) -> str:
        return self.kind + (f":{self.variable or format(self.parameter, 'g')}" if self.variable or self.parameter else "")

    @property
    def by_outcome(self) -> bool:
        return self.kind in ("dirichlet", "label")


def parse(text: str) -> Partition:
    """`dirichlet:0.3` and its kin. Raises `SimulationInvalid`."""
    name, _, rest = text.partition(":")
    if name == "natural":
        return Partition("natural", variable=rest)
    defaults: dict[Kind, float] = {"iid": 0.0, "dirichlet": 0.3, "label": 2.0, "quantity": 0.5}
    try:
        kind = next(k for k in defaults if k == name)
        value = float(rest) if rest else defaults[kind]
    except (StopIteration, ValueError):
        raise SimulationInvalid(f"there is no partition {text!r}", help=f"Write one of: {EXAMPLES}.") from None
    whole = kind != "label" or value.is_integer()
    if (kind == "iid" and rest) or (kind != "iid" and not (1e-3 <= value <= 1e6 and whole)) or (kind == "label" and value < 1):
        raise SimulationInvalid(f"the partition {text!r} has a number that does not fit", help=f"Write one of: {EXAMPLES}.")
    return Partition(kind, value)


def chance(seed: int, *words: object) -> np.random.Generator:
    """The randomness of one client, or of one roster: from the study's seed and these words."""
    key = hashlib.sha256("/".join(map(str, ("simulation", seed, *words))).encode()).digest()[:8]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def holding(partition: Partition, rows: int, prior: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How many rows of each outcome a client holds, shape (outcomes,); about `rows` in all. `prior` (outcomes,) is the share of
    each outcome among all rows. Not for `natural`.

    `dirichlet`: a mixture drawn from Dir(alpha · prior) (Hsu et al., 2019, section 3); `label`: equal shares of a few outcomes
    (Li, Diao, Chen and He, ICDE 2022, section 3.2); `quantity`: sizes from a gamma law, what a Dirichlet law of sizes (ibid.)
    comes to for many clients.
    """
    n = rows
    if partition.kind == "quantity":
        n = int(np.clip(np.rint(rng.gamma(partition.parameter, rows / partition.parameter)), 1, MOST_ROWS * rows))
    mixture = prior
    if partition.kind == "dirichlet":
        weight = rng.standard_gamma(np.maximum(partition.parameter * prior, 1e-12))
        # Concentrations near 0 may underflow: then all weight lies on one outcome.
        mixture = weight / weight.sum() if weight.sum() > 0 else np.eye(len(prior))[rng.choice(len(prior), p=prior)]
    elif partition.kind == "label":
        there = np.flatnonzero(prior > 0)
        chosen = rng.choice(there, size=min(int(partition.parameter), len(there)), replace=False)
        mixture = np.zeros(len(prior))
        mixture[chosen] = 1 / len(chosen)
    return rng.multinomial(n, mixture / mixture.sum())


def drawn(count: int, total: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` of 0..total-1, in order; without repeats where there are enough."""
    return np.sort(rng.choice(total, size=count, replace=count > total))
