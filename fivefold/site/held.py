"""Which rows lie frozen at this site: for which study, since when, until when, and which were destroyed (SATRE 3.1.08).

The record is the site's signed log; the snapshots on disk are compared with it, so that rows which nobody wrote down show, and
rows that ought to be there and are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fivefold.governance.approvals import approvals
from fivefold.governance.statements import Statement
from fivefold.records.audit import entries
from fivefold.site.folder import SiteFolder

State = Literal["held", "destroyed", "missing", "not in the log"]
AMISS: tuple[State, ...] = ("missing", "not in the log")


@dataclass(frozen=True)
class Held:
    """The frozen rows of one study (digest, hex). `frozen` and `destroyed` are times of the log's entries (RFC 3339); `until`
    is the last day of the approval (ISO); `data` the keyed digest of the rows; `size` of the sealed file in bytes."""

    study: str
    title: str
    asset: str
    state: State
    frozen: str
    destroyed: str
    until: str
    data: str
    size: int


def held(site: SiteFolder) -> tuple[Held, ...]:
    """Every snapshot that the log tells of or that lies on disk, the oldest first. Raises `StatementInvalid` for an altered
    approval."""
    log = site.state / "audit.jsonl"
    told: dict[str, dict[str, Any]] = {}
    for entry in entries(log) if log.exists() else ():
        study = str(entry.facts.get("study", ""))
        if entry.event == "snapshot":
            told[study] = dict(entry.facts) | {"frozen": entry.time}
        elif entry.event == "snapshot deleted" and study in told:
            told[study]["destroyed"] = entry.time
    there = {p.stem: p.stat().st_size for p in (site.state / "snapshots").glob("*.snapshot")}
    said = approvals(site.path)
    found = [_one(study, told.get(study, {}), there.get(study), said.get(study, ())) for study in {*told, *there}]
    return tuple(sorted(found, key=lambda one: (one.frozen, one.study)))


def _one(study: str, told: Mapping[str, Any], size: int | None, said: tuple[Statement, ...]) -> Held:
    given = [s.facts for s in said if s.kind == "approval"]
    destroyed = str(told.get("destroyed", ""))
    state: State = "held"
    if size is None:
        state = "destroyed" if destroyed else "missing"
    elif not told or destroyed:
        state = "not in the log"
    return Held(
        study, str(given[-1].get("title", "")) if given else "", str(told.get("asset", "")), state, str(told.get("frozen", "")),
        destroyed, str(given[-1].get("expires", "")) if given else "", str(told.get("data", "")), size or 0,
    )  # fmt: skip
