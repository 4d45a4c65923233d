"""How many sites a secure sum needs, and how many may collude or drop out: the numbers behind its promise.

n counts the sites of the signed study, not those of a round. Following Bonawitz et al. (CCS 2017, section 6): a curious
coordinator that holds the secrets of c sites rebuilds nothing while c < t, and sees h honest sites in every sum if c <= t -
h. An active one may ask some sites for a self-mask's shares and others for the same site's mask key; it fails while 2t > n +
c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fivefold.errors import StudyInvalid

FEWEST = 3


def default_threshold(n: int) -> int:
    """floor(2n/3) + 1: the smallest threshold that withstands an active coordinator with just under a third of the sites."""
    return 2 * n // 3 + 1


@dataclass(frozen=True)
class Thresholds:
    """The parameters of a study's secure sums. Raises `StudyInvalid` for combinations that promise what cannot be kept.

    `threshold` None means `default_threshold(n)`. `colluders` (c) are sites whose secrets the coordinator may hold; `honest`
    (h) are those that every sum must then still contain.
    """

    n: int
    threshold: int | None = None
    minimum_sites: int = FEWEST
    colluders: int = 0
    honest: int = 2
    adversary: Literal["active", "curious"] = "active"

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise StudyInvalid(fault[0], help=fault[1])

    @property
    def t(self) -> int:
        """Shares that rebuild a secret."""
        return default_threshold(self.n) if self.threshold is None else self.threshold

    @property
    def survivors_needed(self) -> int:
        """Sites that must be in a sum before any site helps to unmask it: max(t, minimum_sites, c + h)."""
        return max(self.t, self.minimum_sites, self.colluders + self.honest)

    @property
    def colluders_tolerated(self) -> int:
        """The most sites that may work with the coordinator: t - h if it is curious, min(2t - n - 1, t - h) if it is active."""
        curious = self.t - self.honest
        return curious if self.adversary == "curious" else min(2 * self.t - self.n - 1, curious)

    @property
    def dropouts_tolerated(self) -> int:
        """The most sites that may drop out over all trips of a round together."""
        return self.n - self.survivors_needed

    def sentences(self) -> tuple[str, ...]:
        """What the numbers mean, in plain words."""
        n, need = self.n, self.survivors_needed
        kind = "keeps to the protocol but reads everything" if self.adversary == "curious" else "lies about who dropped out"
        company = f"together with up to {_sites(self.colluders_tolerated)}" if self.colluders_tolerated else "alone"
        lost = self.dropouts_tolerated
        drop = (
            f"A round fails if any of the {n} sites drops out: all of them are needed."
            if lost == 0
            else f"A round bears up to {_sites(lost)} of {n} dropping out, over all its trips together; {need} are needed."
        )
        return (
            f"The coordinator learns the sum over at least {need} of {n} sites and nothing else.",
            f"This holds against a coordinator that {kind}, {company}.",
            drop,
        )

    def _fault(self) -> tuple[str, str] | None:
        n, t, c, h = self.n, self.t, self.colluders, self.honest
        if self.minimum_sites < FEWEST:
            return (
                f"minimum_sites is {self.minimum_sites}; in a sum of two each learns the other's numbers by subtraction",
                f"Write minimum_sites: {FEWEST} or more.",
            )
        if n < self.minimum_sites:
            return (
                f"the study has {_sites(n)} and asks for at least {self.minimum_sites}",
                "Add sites, or lower minimum_sites to 3.",
            )
        if h < 2 or c < 0:
            return (
                f"honest is {h} and colluders is {c}; a sum that contains fewer than two honest sites shows one of them",
                "Write honest: 2 or more and colluders: 0 or more.",
            )
        if not 2 <= t <= n:
            return (
                f"a threshold of {t} does not fit {n} sites",
                f"Write a threshold from 2 to {n}, or leave it out for {default_threshold(n)}.",
            )
        if c + h > n:
            return (
                f"{c} colluders and {h} honest sites are more than the study's {n}",
                "Lower colluders or honest, or add sites.",
            )
        if self.adversary == "active" and 2 * t <= n:
            return (
                f"with a threshold of {t} of {n} sites a coordinator that lies about drop-outs could open single sites",
                f"Write a threshold of at least {n // 2 + 1}, or leave it out for {default_threshold(n)}.",
            )
        if c > self.colluders_tolerated or self.colluders_tolerated < 0:
            return (
                f"with a threshold of {t} of {n} sites and {h} honest ones in every sum, {c} colluders are not withstood",
                _instead(n, c, h, self.adversary),
            )
        return None


def _instead(n: int, c: int, h: int, adversary: str) -> str:
    least = max(c + h, (n + c) // 2 + 1 if adversary == "active" else 2)
    return f"Write a threshold of at least {least}." if least <= n else "Lower colluders or honest, or add sites."


def _sites(count: int) -> str:
    return "no site" if count == 0 else "1 site" if count == 1 else f"{count} sites"
