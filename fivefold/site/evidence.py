"""A site's evidence for a research package: approvals, data commitment, log head and privacy spent, signed by the node.

Nothing in it tells a value, a count or a path: data and mapping appear as keyed digests (HMAC-SHA256 under the site's own
secret), so that the site can show later that it holds the same rows, and nobody can try guesses against them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fivefold.errors import NotApproved
from fivefold.governance.evidence import KIND
from fivefold.governance.statements import read_chain, signed
from fivefold.records.audit import read_head
from fivefold.site.budget import by_study
from fivefold.site.budget_book import load, place
from fivefold.site.folder import SiteFolder
from fivefold.site.preparation import open_prepared, snapshot_path
from fivefold.study.digest import SignedStudy


def evidence_of(site: SiteFolder, found: SignedStudy, *, now: datetime | None = None) -> bytes:
    """The signed evidence of a site about a study. The log says that it was given.

    Raises `NotApproved` where the study was never approved here, `SnapshotProblem` where its snapshot is damaged.
    """
    now = now or datetime.now(UTC)
    chain = site.state / "approvals" / found.digest
    if not read_chain(chain):
        raise NotApproved("the custodian has not approved this study", rule="no_approval")
    with site.act("evidence", study=found.digest):
        head = read_head(site.state / "audit.jsonl")
        tags = _tags(site, found)
        facts: dict[str, Any] = {
            "site": site.name(),
            "study": found.digest,
            "approvals": [path.read_text("utf-8") for path in sorted(chain.glob("*.json"))],
            "data": tags[0],
            "mapping": tags[1],
            "log": {"entries": head.seq if head else 0, "head": head.hash if head else ""},
            "privacy": _privacy(site, found),
            "at": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        return signed(KIND, facts, site.node_key())


def _tags(site: SiteFolder, found: SignedStudy) -> tuple[str, str]:
    """Keyed digests of the frozen rows and of the mapping; empty where the snapshot is gone, as after a study's end."""
    if not snapshot_path(site, found.digest).exists():
        return "", ""
    tags = open_prepared(site, found.study, found.digest).tags
    return tags.data, tags.mapping


def _privacy(site: SiteFolder, found: SignedStudy) -> dict[str, float]:
    """What the study has spent of the asset's budget, as (ε, δ); nothing where it answers with exact sums."""
    promised = found.study.privacy.differential_privacy
    if promised is None:
        return {}
    asset = site.policy().asset
    spent = by_study(load(place(site.state, asset), asset), promised.delta)
    epsilon = next((s.epsilon for s in spent if s.study == found.digest), 0.0)
    return {"epsilon": float(epsilon), "delta": float(promised.delta)}
