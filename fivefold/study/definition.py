"""WHAT is to be done: the study as frozen values. `study/yaml.py` reads them from a file and is the border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fivefold.study.dictionary import Dictionary, Variable

Adversary = Literal["active", "curious"]


@dataclass(frozen=True)
class Lead:
    """Who asks: signs the study with the key whose public half (Ed25519, 64 hex digits) stands here."""

    name: str
    organisation: str
    public_key: str
    orcid: str = ""


@dataclass(frozen=True)
class StudySite:
    """An institution that is asked. `name` is short and unique; `public_key` is its node's Ed25519 key, 64 hex digits."""

    name: str
    public_key: str
    organisation: str = ""


@dataclass(frozen=True)
class Cohort:
    """Which persons: expressions over dictionary variables. A row belongs if all of `include` and none of `exclude` hold.

    `index_date` names the variable from which time counts, if there is one.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    index_date: str | None = None


@dataclass(frozen=True)
class Derived:
    """A variable computed at the site from others by an expression (`study/expressions.py`), described like any other."""

    variable: Variable
    expression: str


@dataclass(frozen=True)
class Analysis:
    """One named method with its formula and options. `subgroup` is an expression that restricts the rows."""

    name: str
    method: str
    formula: str = ""
    variables: tuple[str, ...] = ()
    subgroup: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    """The sites that take part in it; none named: all of the study."""


@dataclass(frozen=True)
class Envelope:
    """Within this the lead may vary an analysis without a new approval; each variation is logged and charged."""

    variables: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ()
    fits: int = 0


@dataclass(frozen=True)
class DifferentialPrivacy:
    """What every answer of the study is worth at most to somebody who wants to know about one person (or one site).

    `unit` is what is protected: neighbouring data differ by all rows of one person, or by one whole site. `noise_multiplier` z:
    the summed noise's standard deviation is z times the L2 sensitivity of each answer (per question, fields weighed alike).
    `epsilon` at `delta` is the cap that all questions of the study together may cost. `dropouts` (d) may be missing from a
    round and the noise of the others still suffices.
    """

    unit: Literal["person", "site"]
    epsilon: float
    delta: float
    noise_multiplier: float
    dropouts: int = 0


@dataclass(frozen=True)
class Privacy:
    """How the coordinator is kept from learning more than sums (design: docs/secure-sum.md).

    `threshold` None means floor(2n/3) + 1. `minimum_sites` must be 3 or more. `colluders` (c) and `honest` (h) are what
    every sum is to withstand and to contain. `max_rows_per_site` is public and sets the ring's scale.
    """

    mode: Literal["secure_sum"] = "secure_sum"
    adversary: Adversary = "active"
    threshold: int | None = None
    minimum_sites: int = 3
    minimum_persons: int = 5
    minimum_difference: int = 2
    colluders: int = 0
    honest: int = 2
    max_rows_per_site: int = 1_000_000
    differential_privacy: DifferentialPrivacy | None = None


@dataclass(frozen=True)
class Stragglers:
    """What a round does about slow sites. `wait`: it waits for each that gives signs of life. `quorum`: for `deadline` seconds
    it waits for all, and from then on it goes on as soon as `quorum` sites have answered. `drop`: it goes on as soon as
    `quorum` sites have answered, and whoever is later is not in the round.

    `quorum` None means as few as the secure sum can open.
    """

    policy: Literal["wait", "quorum", "drop"] = "wait"
    quorum: int | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Agreements:
    """Under which agreements: `expires` is an ISO date after which no site answers. `data_sharing` is the SHA-256 (hex) of the
    data-sharing agreement, whose file lies at the sites."""

    ethics: str
    purpose: str
    expires: str
    public_benefit: str = ""
    data_sharing: str = ""


@dataclass(frozen=True)
class OutputChecker:
    """Who looks at results before anybody else, and lets them go or not. The key opens what is sealed and signs decisions."""

    name: str
    organisation: str
    public_key: str


@dataclass(frozen=True)
class Outputs:
    """What is to come out: titles of what is planned, stated at the outset, and the licence of the research package. Of the
    `checkers` so many as `checks` must agree, each for themselves, before anything is released."""

    planned: tuple[str, ...] = ()
    licence: str = "CC-BY-4.0"
    checkers: tuple[OutputChecker, ...] = ()
    checks: int = 2


@dataclass(frozen=True)
class Study:
    """The whole study file, its dictionary read in."""

    title: str
    question: str
    lead: Lead
    sites: tuple[StudySite, ...]
    dictionary: Dictionary
    person: str
    cohort: Cohort
    variables: Mapping[str, str]
    """Each variable used, and why."""
    derived: tuple[Derived, ...]
    analyses: tuple[Analysis, ...]
    envelope: Envelope
    privacy: Privacy
    outputs: Outputs
    agreements: Agreements
    seed: int = 0
    stragglers: Stragglers = Stragglers()

    @property
    def phenotypes(self) -> Dictionary:
        """The variables that the study uses, the derived ones among them."""
        used = {n: self.dictionary[n] for n in self.variables}
        derived = {d.variable.name: d.variable for d in self.derived}
        return Dictionary(self.dictionary.name, self.dictionary.version, used | derived)
