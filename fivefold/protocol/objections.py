"""What is said of a release: the proposal that sites are shown, how many of them object and by which rule, and that it was
made.

A proposal is a run of its own with one question: a secure sum of noughts and ones over *all* sites of the study. A sum over
all but one would tell, by subtraction, what that one said; so a site has a part in the sum over all or in none.

    propose → [ enrol → share → ask → survivors → unmask ] → close        the trips between are those of any round
    enter        before the files of a release are anybody's
    recalled     where it was wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fivefold.protocol.encoding import encode
from fivefold.protocol.messages import Message
from fivefold.protocol.questions import Field

STATEMENT = "output_proposal"
"""The kind of an output checker's signed word that this is proposed."""
MEMBERSHIP, UNTESTED = "membership", "untested"
RULES = ("threshold", "dominance", "differencing", MEMBERSHIP)
"""By which a site objects; any of them holds the release."""
REMARKS = (UNTESTED, "k-anonymity", "class-disclosure", "smallest-class")
"""What a site says of a trained model beside; most models have one of them, and a person weighs it."""
FIELDS = (Field("objections", "count", 1.0, (1 + len(RULES) + len(REMARKS),)),)
"""One site's answer: whether it objects, whether by each rule, and each remark. They count sites, not persons."""


@dataclass(frozen=True)
class Shown(Message):
    """What would be released of a signed `study`: `counts` (encoded: salt, and counts by analysis).

    `request`: the lead's signed request. `proposal`: an output checker's signature over run, request and the digests of counts
    and models. `appointed`: where a site named that checker, the site's signed `Opened` that says so.
    """

    study: bytes
    request: bytes
    proposal: bytes
    counts: bytes
    appointed: bytes = b""


@dataclass(frozen=True)
class Propose(Shown):
    """Judge what is shown, and its trained `models` (encoded: file by analysis)."""

    kind: ClassVar[str] = "propose"
    models: bytes = b""


@dataclass(frozen=True)
class Considered(Message):
    """The proposal was judged; what came of it goes into the sum alone."""

    kind: ClassVar[str] = "considered"


@dataclass(frozen=True)
class Enter(Shown):
    """What is shown is about to be released: enter it in the site's own ledger."""

    kind: ClassVar[str] = "enter"


@dataclass(frozen=True)
class Recalled(Message):
    """A release of a signed `study` was recalled; `notice` is the signed statement."""

    kind: ClassVar[str] = "recalled"
    study: bytes
    notice: bytes


@dataclass(frozen=True)
class Entered(Message):
    """The release, or its recall, is in this site's ledger, on disk."""

    kind: ClassVar[str] = "entered"


@dataclass(frozen=True)
class Objections:
    """How many of `sites` object, how many by each rule, and how many make each remark. `missing`: sites without which there is
    no sum, by the rule for which they were lost; then nobody knows whether any objects."""

    sites: int
    objecting: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.missing:
            why = _said(self.missing)
            return f"objections are counted over all {self.sites} sites or not at all, and there is no sum ({why})"
        if not self.objecting:
            return f"none of {self.sites} sites objects"
        return f"{self.objecting} of {self.sites} sites object ({_said({r: n for r, n in self.rules.items() if n})})"


def question_of(proposal: str) -> bytes:
    """The question about the proposal whose statement has this digest. Masks bind it: sites that were shown different ones
    open nothing together."""
    return encode({"asks": "objections", "of": proposal, "rules": RULES, "remarks": REMARKS})


def _said(counts: Mapping[str, int]) -> str:
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{name} {n}" for name, n in counts.items())
