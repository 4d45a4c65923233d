"""A site's own policy: `site.yaml`, and the one decision point that is asked before each gated act.

The custodian writes and signs it; a coordinator neither sets nor sees it. Denied unless a rule permits, and every decision
names the rule that made it and the line where it stands. A file that does not parse permits nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from fivefold.auth.keys import fingerprint
from fivefold.errors import PolicyRefuses
from fivefold.governance.policy_keys import (
    Budget,
    Choice,
    Custodian,
    Data,
    Frozen,
    Key,
    Name,
    Peer,
    People,
    Projects,
    Settings,
)
from fivefold.governance.tiers import Tier, lacking
from fivefold.privacy.secagg.thresholds import default_threshold
from fivefold.protocol.questions import Gather, Relay, Sum
from fivefold.study.definition import Analysis, Study
from fivefold.study.lines import parse, raw, validated
from fivefold.study.model_code import codes

FILE = "site.yaml"
__all__ = ["FILE", "STUDY_RULES", "Choice", "Custodian", "Decision", "Policy", "decide", "expiry", "needed", "recognised"]


class Policy(Frozen):
    """What a site permits. `lines` says where each key stands in the file, `digest` (SHA-256, hex) binds approvals to the
    text."""

    version: int = Field(ge=1)
    site: Name
    asset: Name
    expires: date
    custodians: tuple[Custodian, ...]
    revoked: tuple[Key, ...] = ()
    """Keys that may no longer sign anything, whoever held them."""
    peers: tuple[Peer, ...] = ()
    leads: tuple[Key, ...] = ()
    """Public keys of leads whose studies may be approved; none: any lead's."""
    methods: tuple[Name, ...] = ()
    steps: tuple[Name, ...] = ()
    """Steps that let out anything but a sum, by identity (`pca.loadings/1`); every other such step is refused."""
    adversary: Literal["active", "curious"] = "active"
    minimum_persons: int = Field(default=5, ge=3)
    local_minimum: int = Field(default=0, ge=0)
    """A count of persons of this site alone in 1..local_minimum-1 refuses the step; 0 or 1: no such rule."""
    minimum_sites: int = Field(default=3, ge=3)
    minimum_difference: int = Field(default=2, ge=2)
    colluders: int = Field(default=0, ge=0)
    honest: int = Field(default=2, ge=2)
    site_totals: Choice = "refused"
    event_totals: Choice = "refused"
    exact_sums: Choice = "permitted"
    """`refused`: every answer needs differential privacy."""
    max_epsilon: float | None = Field(default=None, gt=0)
    """The floor of privacy where a study has differential privacy: its ε may not be larger."""
    budget: Budget | None = None
    """The cap over all studies on the asset; without it noisy answers are only written into the ledger."""
    user_models: Choice = "refused"
    """`permitted`: model code that stands in a study may run here, confined, where the custodian approves that very code."""
    mix_exact_and_noisy: Choice = "permitted"
    """`refused`: an asset that gave exact sums gives no noisy ones, and the other way round."""
    max_rounds: int = Field(default=500, ge=1)
    max_iterations: int = Field(default=25, ge=1)
    numbers_per_person: float = Field(default=500.0, gt=0)
    """All numbers of all rounds of a study that may leave, for each person of the cohort (parameters per row)."""
    degrees_of_freedom: int = Field(default=10, ge=0)
    dominance: float = Field(default=0.5, gt=0, lt=1)
    """No person may carry more than this share of a weighted sum."""
    opt_outs: Name | None = None
    """A file with one person identifier a line; these persons are removed before anything else."""
    people: People | None = None
    projects: Projects | None = None
    settings: Settings | None = None
    data: Data | None = None
    tier: Tier | None = None

    _lines: Mapping[str, int] = PrivateAttr(default_factory=dict)
    _digest: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.custodians:
            raise ValueError("name at least one custodian")
        if len({c.key for c in self.custodians}) != len(self.custodians):
            raise ValueError("two custodians share a key; give each person a key of their own")
        if len({p.site for p in self.peers}) != len(self.peers) or len({p.fingerprint for p in self.peers}) != len(self.peers):
            raise ValueError("a peer stands in the list twice")
        if missing := lacking(self):
            raise ValueError(f"the tier {self.tier} asks for {'; '.join(missing)}")
        return self

    def line(self, key: str) -> int:
        """The line of a key in site.yaml (`people.training`: of a key within a key, or else of the outer one); where it is not
        written, its default holds, and line 0 says so."""
        return self._lines.get(key) or self._lines.get(key.partition(".")[0], 0)

    @property
    def digest(self) -> str:
        return self._digest

    @classmethod
    def of(cls, text: bytes, name: str = FILE) -> Policy:
        """A policy from the bytes of site.yaml. Raises `PolicyRefuses` with the line: what does not parse permits nothing."""
        return _parsed(text, name)

    @classmethod
    def read(cls, path: Path) -> Policy:
        """A policy from a file, its signature *not* looked at: see `governance/custody.py: custody_of`."""
        return cls.of(raw(path, missing=PolicyRefuses), path.name)


@lru_cache(maxsize=16)
def _parsed(text: bytes, name: str) -> Policy:
    """The same bytes are the same policy: a node asks before every answer."""
    document = parse(text, name, invalid=PolicyRefuses)
    policy = validated(Policy, document, invalid=PolicyRefuses, example="Write one with `fivefold site init`.")
    named = {where: line for where, line in document.lines.items() if where and all(isinstance(w, str) for w in where)}
    policy._lines = {".".join(map(str, where)): line for where, line in named.items()}
    policy._digest = hashlib.sha256(text).hexdigest()
    return policy


@dataclass(frozen=True)
class Decision:
    """Permit or deny, with the rule of site.yaml that made it, its line (0: the default, not written out) and one sentence.
    `evidence`: what it rests on, for the site's own eyes and its evidence page."""

    permit: bool
    rule: str
    line: int
    sentence: str
    evidence: str = ""

    def enforce(self) -> Decision:
        """This decision where it permits. Raises `PolicyRefuses` that names the rule."""
        if not self.permit:
            where = f"{FILE}, line {self.line}" if self.line else f"{FILE}, by default"
            raise PolicyRefuses(f"{where}, rule {self.rule}: {self.sentence}", rule=self.rule)
        return self


Rule = Callable[[Policy, Study, date], str | None]
"""Why a study as a whole is refused, or None."""


def _methods(policy: Policy, study: Study, _: date) -> str | None:
    refused = sorted({a.method for a in study.analyses} - set(policy.methods))
    return f"the method {refused[0]} is not among the methods that this site permits" if refused else None


def _envelope(policy: Policy, study: Study, _: date) -> str | None:
    refused = sorted(set(study.envelope.methods) - set(policy.methods))
    return f"the study's envelope holds the method {refused[0]}, which this site does not permit" if refused else None


def _expiry(policy: Policy, study: Study, day: date) -> str | None:
    if day > policy.expires:
        return f"this policy ended on {policy.expires}"
    return f"the study's agreements ended on {study.agreements.expires}" if day > expiry(study) else None


def _lead(policy: Policy, study: Study, _: date) -> str | None:
    if policy.leads and study.lead.public_key not in policy.leads:
        return "the key that signs the study is not one of the leads that this site admits"
    return None


def _mine(policy: Policy, study: Study, _: date) -> str | None:
    return None if policy.site in {s.name for s in study.sites} else "the study does not name this site"


def _peers(policy: Policy, study: Study, _: date) -> str | None:
    pinned = {p.site: p.fingerprint for p in policy.peers}
    for site in study.sites:
        if site.name != policy.site and site.name in pinned and not _is(pinned[site.name], site.public_key):
            return f"the study gives site {site.name} another key than the one that this site pinned"
    known, wanted = len(recognised(policy, study)), needed(policy, study)
    if known < wanted:
        return f"this site recognises {known} of {len(study.sites)} sites, and at least {wanted} must stand in every sum"
    return None


def _at_least(rule: str, words: str) -> Rule:
    def check(policy: Policy, study: Study, _: date) -> str | None:
        asked, floor = getattr(study.privacy, rule), getattr(policy, rule)
        return f"the study asks for {words} {asked}, and this site for at least {floor}" if asked < floor else None

    return check


def _adversary(policy: Policy, study: Study, _: date) -> str | None:
    if study.privacy.adversary != "active" and policy.adversary == "active":
        return "the study trusts the coordinator to follow the protocol (adversary: curious), and this site does not"
    return None


def _withstood(policy: Policy, study: Study, _: date) -> str | None:
    """Bonawitz et al. (2017), section 6: against an active coordinator two survivor lists must share an honest site."""
    n, t = len(study.sites), _threshold(study)
    most = t - max(study.privacy.honest, policy.honest)
    if study.privacy.adversary == "active":
        most = min(most, 2 * t - n - 1)
    if max(study.privacy.colluders, policy.colluders) <= most:
        return None
    return f"with {n} sites and a threshold of {t} the sum withstands too few colluding sites"


def _exact(policy: Policy, study: Study, _: date) -> str | None:
    if study.privacy.differential_privacy is None and policy.exact_sums == "refused":
        return "the study asks for exact sums, and this site answers with differential privacy only"
    return None


def _epsilon(policy: Policy, study: Study, _: date) -> str | None:
    private = study.privacy.differential_privacy
    if private is None or policy.max_epsilon is None:
        return None
    if 0 < private.epsilon <= policy.max_epsilon:
        return None
    return f"the study's differential privacy is weaker than ε = {policy.max_epsilon}"


def _iterations(policy: Policy, study: Study, _: date) -> str | None:
    for analysis in study.analyses:
        asked = analysis.options.get("max_iterations")
        if isinstance(asked, (int, float)) and asked > policy.max_iterations:
            return f"analysis {analysis.name} asks for {asked} iterations, and this site admits {policy.max_iterations}"
    return None


def _user_models(policy: Policy, study: Study, _: date) -> str | None:
    own = codes(study.analyses)
    if own and policy.user_models == "refused":
        return f"the study brings model code of its own ({min(own)[:16]}…), and this site runs none"
    return None


STUDY_RULES: tuple[tuple[str, Rule], ...] = (
    ("expires", _expiry),
    ("site", _mine),
    ("leads", _lead),
    ("methods", _methods),
    ("methods", _envelope),
    ("adversary", _adversary),
    ("minimum_persons", _at_least("minimum_persons", "a minimum of persons of")),
    ("minimum_sites", _at_least("minimum_sites", "a minimum of sites of")),
    ("minimum_difference", _at_least("minimum_difference", "a minimum difference of")),
    ("colluders", _at_least("colluders", "colluders withstood:")),
    ("honest", _at_least("honest", "honest sites in each sum:")),
    ("colluders", _withstood),
    ("exact_sums", _exact),
    ("max_epsilon", _epsilon),
    ("max_iterations", _iterations),
    ("user_models", _user_models),
    ("peers", _peers),
)
"""Read top to bottom; the first that objects decides."""


def decide(
    policy: Policy,
    study: Study,
    *,
    analysis: Analysis | None = None,
    question: Sum | Gather | Relay | tuple[Sum, ...] | None = None,
    round: int = 0,
    today: date,
) -> Decision:
    """May this study, this analysis, this question be answered? Deny by default.

    `round` counts over the whole run, from 1. The sites' own permission for `needs` (`site_totals`, `event_totals`) is
    looked up here for the policy; the approval's own choice is narrower and is asked by the gate as well.
    """
    for rule, objection in STUDY_RULES:
        why = objection(policy, study, today)
        if why is not None:
            return Decision(False, rule, policy.line(rule), why)
    if analysis is not None and analysis.method not in policy.methods:
        return _deny(policy, "methods", f"the method {analysis.method} is not among the methods that this site permits")
    if round > policy.max_rounds:
        return _deny(policy, "max_rounds", f"round {round} lies beyond the {policy.max_rounds} that this site answers")
    for one in question if isinstance(question, tuple) else () if question is None else (question,):
        decision = decide_question(policy, one)
        if not decision.permit:
            return decision
    return Decision(True, "methods", policy.line("methods"), "this site permits the study's methods, and no rule objects")


def decide_question(policy: Policy, question: Sum | Gather | Relay) -> Decision:
    step = question.step
    if not isinstance(question, Sum) or step.leaves != "sum":
        if step.identity in policy.steps:
            return Decision(True, "steps", policy.line("steps"), f"the step {step.identity} is named")
        return _deny(policy, "steps", f"the step {step.identity} lets out more than a sum, and this site does not name it")
    for need in question.needs:
        if getattr(policy, need, "refused") != "permitted":
            words = {"event_totals": "totals at single event times", "site_totals": "this site's own totals"}.get(need, need)
            return _deny(policy, need, f"the step {step.identity} would show {words}")
    return Decision(True, "methods", policy.line("methods"), f"the step {step.identity} leaves a sum")


def _deny(policy: Policy, rule: str, sentence: str) -> Decision:
    return Decision(False, rule, policy.line(rule), sentence)


def expiry(study: Study) -> date:
    """The day after which no site answers. Raises `PolicyRefuses` where the study names none."""
    try:
        return date.fromisoformat(str(study.agreements.expires)[:10])
    except ValueError as error:
        raise PolicyRefuses("the study's agreements name no day on which they end", rule="expires") from error


def recognised(policy: Policy, study: Study) -> tuple[str, ...]:
    """The study's sites that count for this site: itself, and those whose key in the study is the one it pinned."""
    pinned = {p.site: p.fingerprint for p in policy.peers}
    return tuple(s.name for s in study.sites if s.name == policy.site or _is(pinned.get(s.name, ""), s.public_key))


def _is(pinned: str, key: str) -> bool:
    return pinned == fingerprint(bytes.fromhex(key))


def needed(policy: Policy, study: Study, among: int | None = None) -> int:
    """The survivors that every sum must have: max(t, minimum_sites, c + h), the stricter of study and policy; with
    differential privacy n - d as well, since the noise of fewer would not suffice (`among`: of a buffer of so many sites)."""
    private = study.privacy
    sites = max(private.minimum_sites, policy.minimum_sites)
    if private.differential_privacy is not None:
        many = len(study.sites) if among is None else among
        sites = max(sites, many - private.differential_privacy.dropouts)
    return max(_threshold(study), sites, max(private.colluders, policy.colluders) + max(private.honest, policy.honest))


def _threshold(study: Study) -> int:
    return study.privacy.threshold or default_threshold(len(study.sites))
