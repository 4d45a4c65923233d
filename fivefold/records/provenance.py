"""How a run came to be, as values: what the coordinator knows at its end and the run's crate tells.

Everything here is public to the consortium: no key but public ones, no value of a person, no path outside the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Setting = str | int | float | bool | None
Status = Literal["completed", "failed", "stopped"]


@dataclass(frozen=True)
class SiteRecord:
    """An institution of the study: its short name, its full one, its node's public key (64 hex digits)."""

    name: str
    organisation: str = ""
    public_key: str = ""


@dataclass(frozen=True)
class RoundRecord:
    """One round: its number within the analysis (from 1), the questions asked by identity (`glm.score_and_information/1`),
    the sites whose answers are in the total, and those that dropped."""

    number: int
    questions: tuple[str, ...]
    answered: tuple[str, ...]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalysisRecord:
    """One analysis: its name in the study, the method with title and paper, its formula, its rounds, and the files it left
    (relative to the run folder)."""

    name: str
    method: str
    rounds: tuple[RoundRecord, ...]
    title: str = ""
    paper: str = ""
    formula: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeadRecord:
    """Who asked. `orcid` is sixteen digits in four groups, or empty."""

    name: str
    organisation: str
    orcid: str = ""


@dataclass(frozen=True)
class RunRecord:
    """A whole run. Times are RFC 3339 in UTC; digests are SHA-256 in hex; `study_file` is relative to the run folder.

    `software` maps names of packages to versions and must hold `fivefold`. `privacy` holds the study's settings by name
    (`mode`, `minimum_persons`, …); `error` is the public code of what ended a run that failed.
    """

    run: str
    title: str
    question: str
    lead: LeadRecord
    study_file: str
    study_digest: str
    dictionary: str
    dictionary_version: str
    dictionary_digest: str
    sites: tuple[SiteRecord, ...]
    analyses: tuple[AnalysisRecord, ...]
    engine: str
    software: Mapping[str, str]
    started: str
    ended: str
    licence: str
    privacy: Mapping[str, Setting] = field(default_factory=dict)
    ethics: str = ""
    purpose: str = ""
    seed: int = 0
    status: Status = "completed"
    error: str = ""
    rehearsal: bool = False
    """True where all sites were played on one machine."""

    def rounds_of(self, site: str) -> tuple[int, int]:
        """In how many rounds the site answered, and in how many it dropped."""
        rounds = [r for analysis in self.analyses for r in analysis.rounds]
        return sum(site in r.answered for r in rounds), sum(site in r.dropped for r in rounds)
