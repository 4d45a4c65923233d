"""What a Five Safes crate tells beside the run itself, as values: sign-offs of the sites, and the check of the outputs.

Everything here is public to the consortium. What a site says is signed by its node (`site/evidence.py` writes it,
`governance/evidence.py` reads and verifies it); its data are named by keyed digests alone, which tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fivefold.study.definition import Study

Check = Literal["completed", "failed", "pending"]


@dataclass(frozen=True)
class SiteEvidence:
    """What one site signed about one study: who approved it and how, on which data, and where its log stands.

    `commitment` is the keyed digest (HMAC-SHA256, hex) of the frozen rows; empty where nothing was frozen. `spent` is the
    privacy spent on the study (ε at `delta`), None where it answers with exact sums. `document` is the signed file.
    """

    site: str
    custodian: str
    custodian_key: str
    approved: str
    expires: str
    analyses: tuple[str, ...]
    policy_version: int
    policy_digest: str
    commitment: str
    mapping: str
    log_entries: int
    log_head: str
    document: bytes
    organisation: str = ""
    withdrawn: str = ""
    safes: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    """By Safe (projects, people, settings, data): the rules of the site's policy that permitted the study, and that object."""
    spent: float | None = None
    delta: float | None = None


@dataclass(frozen=True)
class Disclosure:
    """The check of the outputs: its state, who decided, when, in which words; the files that prove it, by path; and every
    check that was made (what it looked at, by which rules with which thresholds, what came of it)."""

    status: Check
    words: str
    by: tuple[str, ...] = ()
    ended: str = ""
    files: tuple[str, ...] = ()
    checks: tuple[tuple[str, str, str], ...] = ()


NOT_CHECKED = Disclosure(
    "pending", "Disclosure check of the results: the rules of the run held; no output checker has decided yet"
)


@dataclass(frozen=True)
class Package:
    """All that the outer crate is made from. `parts` are files of the nested run crate, relative to it; `others` are files
    beside it (relative to the crate), with a sentence each. Times are RFC 3339."""

    study: Study
    digest: str
    run: str
    engine: str
    software: str
    started: str
    ended: str
    completed: bool
    sites: tuple[SiteEvidence, ...]
    parts: tuple[str, ...]
    built: str
    disclosure: Disclosure = NOT_CHECKED
    others: dict[str, str] = field(default_factory=dict)
    recalled: str = ""
    """Who recalled the release, when and why; empty for one that stands."""
    log: tuple[int, str] = (0, "")
    """Entries and head of the coordinator's log of the run."""
