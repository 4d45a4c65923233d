"""A release that should not have been: its recall, as a notice that anybody can verify.

What is out stays known; a recall says so, and says who found out, when and why. The lead or any output checker of the study may
recall, for every site knows their keys; nobody takes a recall back. A new release is a new request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import public_of
from fivefold.errors import NotApproved, OutputRequestInvalid, StatementInvalid
from fivefold.governance.safe_outputs import RECALL, RELEASE
from fivefold.governance.statements import read_chain, read_statement, write
from fivefold.study.definition import Study

NOTICE = "recalled.json"
"""The notice's name in a release's folder and in a package."""


@dataclass(frozen=True)
class Recall:
    """Who recalled which release (request `number` of `run`), when and why. `proposal`: the digest of what was released."""

    study: str
    run: str
    number: int
    proposal: str
    by: str
    key: str
    reason: str
    at: str
    identity: str
    raw: bytes

    @property
    def words(self) -> str:
        return f"release {self.number} of run {self.run} was recalled on {self.at[:10]} by {self.by}: {self.reason}"


def recallers(study: Study) -> dict[str, str]:
    """Public key (hex) → name of those whom every site knows, and so may recall: the lead and the study's checkers."""
    return {c.public_key: c.name for c in study.outputs.checkers} | {study.lead.public_key: study.lead.name}


def may_recall(study: Study, key: str) -> str:
    """The name of whoever holds this key (hex). Raises `NotApproved`, rule `recaller`."""
    names = recallers(study)
    if key not in names:
        raise NotApproved(
            "this key is not that of the lead or of one of the study's output checkers", rule="recaller",
            help="Tell one of them; a site's own checker refuses what comes next.",
        )  # fmt: skip
    return names[key]


def write_recall(
    chain: Path, study: str, run: str, private: bytes, *, number: int, by: str, reason: str, now: datetime | None = None
) -> Recall:
    """Recall release `number`, signed, in the airlock's chain. Raises `OutputRequestInvalid` where there is nothing to recall,
    `NotApproved` (rule `reason_missing`)."""
    said = read_chain(chain)
    released = [s for s in said if s.kind == RELEASE and s.facts["request"] == number]
    if not released or any(s.kind == RECALL and s.facts["request"] == number for s in said):
        state = "was recalled already" if released else "was never released"
        raise OutputRequestInvalid(f"request {number} {state}", help="`fivefold outputs list RUN` shows what was released.")
    if not reason.strip():
        raise NotApproved("a recall needs a written reason", rule="reason_missing", help="Give it with --why.")
    at = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    facts = {
        "request": number, "study": study, "run": run, "proposal": released[-1].facts["proposal"],
        "files": dict(released[-1].facts["files"]), "by": by, "reason": reason.strip(), "at": at,
    }  # fmt: skip
    write(chain, RECALL, facts, private)
    raw = sorted(chain.glob(f"*-{RECALL}.json"))[-1].read_bytes()
    return read_recall(raw, study, {public_of(private).hex()})


def read_recall(raw: bytes, study: str, keys: Collection[str]) -> Recall:
    """A recall's notice about a study (digest, hex), signed by one of these keys (hex). Raises `StatementInvalid`."""
    said = read_statement(raw, "the notice of a recall")
    f: Mapping[str, Any] = said.facts
    try:
        found = Recall(
            str(f["study"]), str(f["run"]), int(f["request"]), str(f["proposal"]), str(f["by"]), said.signers[0],
            str(f["reason"]), str(f["at"]), said.digest, raw,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise StatementInvalid("the notice of a recall is not whole") from error
    if said.kind != RECALL or found.study != study:
        raise StatementInvalid("the notice is about another study", rule="recall")
    if found.key not in keys:
        raise StatementInvalid("the notice is signed by nobody who may recall", rule="recaller")
    return found
