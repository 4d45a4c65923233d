"""A site's evidence for a research package: approvals, data commitment, log head and privacy spent, signed by the node.

Nothing in it tells a value, a count or a path: data and mapping appear as keyed digests (HMAC-SHA256 under the site's own
secret), so that the site can show later that it holds the same rows, and nobody can try guesses against them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fivefold.errors import NotApproved
from fivefold.governance import five_safes
from fivefold.governance.evidence import KIND
from fivefold.governance.statements import read_chain, signed
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
    with site.act("evidence", study=found.digest) as log:
        head = log.head
        tags = _tags(site, found)
        facts: dict[str, Any] = {
            "site": site.name(),
            "study": found.digest,
            "approvals": [path.read_text("utf-8") for path in sorted(chain.glob("*.json"))],
            "data": tags[0],
            "mapping": tags[1],
            "log": {"entries": head.seq, "head": head.hash, "size": head.size, "key": head.key, "signature": head.signature},
            "privacy": _privacy(site, found),
            "safes": _safes(site, found, now),
            "at": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        return signed(KIND, facts, site.node_key())


def _tags(site: SiteFolder, found: SignedStudy) -> tuple[str, str]:
    """Keyed digests of the frozen rows and of the mapping; empty where the snapshot is gone, as after a study's end."""
    if not snapshot_path(site, found.digest).exists():
        return "", ""
    tags = open_prepared(site, found.study, found.digest).tags
    return tags.data, tags.mapping


def _safes(site: SiteFolder, found: SignedStudy, now: datetime) -> dict[str, dict[str, list[str]]]:
    """By Safe, the rules of this site's policy that permit the study and those that object, by name: a sentence might tell a
    person, a count or a share, and stays here."""
    given = [s for s in read_chain(site.state / "approvals" / found.digest) if s.kind == "approval"][-1:]
    key = given[0].signers[0] if given else ""
    checkers = tuple((str(n), str(k)) for n, k in given[0].facts.get("checkers", ())) if given else ()
    report = open_prepared(site, found.study, found.digest).report if snapshot_path(site, found.digest).exists() else None
    today, custody = now.astimezone(UTC).date(), site.custody(now)
    judged = five_safes.judge(
        site.path, custody, found.study, found.digest, today, custodian=key, checkers=checkers, report=report
    )
    return {
        safe: {
            "permit": sorted({d.rule for d in said if d.permit}),
            "object": sorted({d.rule for d in said if not d.permit}),
        }
        for safe, said in judged.items()
    }


def _privacy(site: SiteFolder, found: SignedStudy) -> dict[str, float]:
    """What the study has spent of the asset's budget, as (ε, δ); nothing where it answers with exact sums."""
    promised = found.study.privacy.differential_privacy
    if promised is None:
        return {}
    asset = site.policy().asset
    spent = by_study(load(place(site.state, asset), asset), promised.delta)
    epsilon = next((s.epsilon for s in spent if s.study == found.digest), 0.0)
    return {"epsilon": float(epsilon), "delta": float(promised.delta)}
