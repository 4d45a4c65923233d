"""What a method is: how its options are read, its rounds, its site steps and its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fivefold.privacy.dp.shares import Sharing
from fivefold.protocol.questions import Rounds, SiteStep
from fivefold.study.definition import Analysis, DifferentialPrivacy
from fivefold.study.dictionary import Dictionary


@dataclass(frozen=True)
class Setting:
    """The public surroundings of an analysis: everything here stands in the signed study.

    `sites` are the study's sites in the order of the file; `minimum_persons` is the study's threshold;
    `max_rows_per_site` bounds every sum over rows.
    """

    dictionary: Dictionary
    sites: tuple[str, ...]
    minimum_persons: int
    max_rows_per_site: int
    seed: int = 0
    differential_privacy: DifferentialPrivacy | None = None
    colluders: int = 0

    @property
    def sharing(self) -> Sharing | None:
        """Who adds noise, under differential privacy; None where sums are exact."""
        private = self.differential_privacy
        if private is None:
            return None
        return Sharing(private.noise_multiplier, private.unit, len(self.sites), private.dropouts, self.colluders)

    def rng(self, round: int) -> np.random.Generator:
        """Randomness that every replay of the study shares (never for secrecy)."""
        return np.random.Generator(np.random.Philox(key=self.seed, counter=round))


@dataclass(frozen=True)
class Cost:
    """An upper bound on what a method asks: rounds, and numbers a round from each site."""

    rounds: int
    numbers_per_round: int
    remarks: tuple[str, ...] = ()
    """What else it costs, in a sentence each."""
    own_rounds: int = 0
    """Of the rounds, those in which each site takes `own_steps` noisy steps, every person being in one with the probability
    `sampling`."""
    own_steps: int = 0
    sampling: float = 1.0


def charged(costs: Sequence[Cost]) -> tuple[int, tuple[tuple[int, float], ...]]:
    """What differential privacy charges, at most: questions that share their noise, and noisy steps at each site with the
    probability at which a person is in one."""
    own = tuple((c.own_rounds * c.own_steps, c.sampling) for c in costs if c.own_rounds)
    return sum(c.rounds - c.own_rounds for c in costs), own


@dataclass(frozen=True)
class Method:
    """`parse` turns an analysis into the method's own frozen spec (raising `StudyInvalid` or `FormulaInvalid` with a sentence
    that says what to write instead); `rounds(spec)` is the generator (one that yields a `Snapshot` takes it as its second
    argument, and goes on from there); `steps` are its site steps; `cost(spec)` bounds it."""

    name: str
    title: str
    paper: str
    parse: Callable[[Analysis, Setting], Any]
    rounds: Callable[..., Rounds]
    steps: tuple[SiteStep, ...]
    cost: Callable[[Any], Cost]
    trains: bool = False
    """Whether it sends model updates (fields of kind `update`); the sites add up those of small models alone."""
    buffers: bool = False
    """Whether it asks for buffers, which no site adds up itself."""
    gathers: bool = False
    """Whether it asks for single sites' replies, which coordinator and sites then see."""
    protects: tuple[Literal["person", "site"], ...] = ()
    """The units for which every field that the method asks declares its sensitivity; none: it cannot run with noise."""
    admit: Callable[[Any, frozenset[str]], None] | None = None
    """What a site has to have and its policy (the steps that it names) has to say before a row is read, where the method runs
    code that is not Fivefold's. Raises `Refused`."""
