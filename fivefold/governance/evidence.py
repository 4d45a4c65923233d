"""What a site hands over about a study for its research package: one statement, signed by its node.

It carries the custodian's signed approvals as they lie at the site, keyed digests of the frozen data, the head of the site's
log and the privacy spent. Whoever packs the run verifies all of it; whoever receives the package can do so again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fivefold.errors import StatementInvalid
from fivefold.governance.statements import Statement, read_statement
from fivefold.records.five_safes_record import SiteEvidence
from fivefold.study.definition import Study

KIND = "evidence"


def read_evidence(raw: bytes, study: Study, digest: str) -> SiteEvidence:
    """A site's evidence for the study, its signature and those of the approvals within verified.

    Raises `StatementInvalid` where it is altered, of another study, of a site that the study does not name, or not signed by
    the key that the study gives that site.
    """
    statement = read_statement(raw, "the evidence")
    facts = statement.facts
    try:
        site = next((s for s in study.sites if s.name == facts["site"]), None)
        if statement.kind != KIND or site is None or statement.signers != (site.public_key,):
            raise StatementInvalid(f"the evidence of {facts['site']} is not signed by that site's node")
        if facts["study"] != digest:
            raise StatementInvalid(f"the evidence of {site.name} is about another study", help=AGAIN)
        approvals = [read_statement(text.encode(), f"an approval of {site.name}") for text in facts["approvals"]]
        approval = _last(approvals, "approval")
        if approval is None or approval.facts["study"] != digest or approval.facts["site"] != site.name:
            raise StatementInvalid(f"the evidence of {site.name} holds no approval of this study", help=AGAIN)
        words = [s for s in approvals if s.kind in ("approval", "withdrawal")]  # refusals, answers, the end lie between them
        ended = words[-1] if words[-1].kind == "withdrawal" else None
        return SiteEvidence(
            site=site.name,
            organisation=site.organisation,
            custodian=str(approval.facts["custodian"]),
            custodian_key=approval.signers[0],
            approved=str(approval.facts["at"]),
            expires=str(approval.facts["expires"]),
            analyses=tuple(approval.facts["analyses"]),
            policy_version=int(approval.facts["policy"]["version"]),
            policy_digest=str(approval.facts["policy"]["digest"]),
            withdrawn=str(ended.facts["at"]) if ended else "",
            commitment=str(facts["data"]),
            mapping=str(facts["mapping"]),
            log_entries=int(facts["log"]["entries"]),
            log_head=str(facts["log"]["head"]),
            safes=tuple(
                (str(safe), tuple(map(str, said["permit"])), tuple(map(str, said["object"])))
                for safe, said in facts.get("safes", {}).items()
            ),
            spent=_number(facts["privacy"], "epsilon"),
            delta=_number(facts["privacy"], "delta"),
            document=raw,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StatementInvalid("the evidence of a site is not whole", help=AGAIN) from error


AGAIN = "Ask the site for it again: `fivefold site evidence STUDY`."


def _last(statements: list[Statement], kind: str) -> Statement | None:
    return next((s for s in reversed(statements) if s.kind == kind), None)


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    return None if facts.get(name) is None else float(facts[name])
