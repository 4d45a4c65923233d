"""What else a custodian says of a study: a refusal, a counter-proposal, the end. Signed, in the chain of its approvals.

A counter-proposal names what the site would answer: without some variables or analyses, with more noise, in fewer rounds. It
changes nothing by itself. The lead makes of it a new version for all, which every site approves anew, or leaves the site out of
named analyses; never is one study run in two ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import public_of
from fivefold.errors import NotApproved, StatementInvalid
from fivefold.governance.approvals import chain_of, state_of
from fivefold.governance.custody import custody_of
from fivefold.governance.life import What, after
from fivefold.governance.statements import Statement, read_chain, read_statement, signed, write
from fivefold.protocol.messages import Roster
from fivefold.study.definition import Study

COUNTER = "counter_notice"
REFUSAL = "refusal_notice"
"""Kinds of what the others are shown of a custodian's answer: signed by the site's node and its custodian."""


@dataclass(frozen=True)
class Wanted:
    """What a site would answer instead. `noise`: the least noise multiplier; `rounds`: the most iterations of any method."""

    without_variables: tuple[str, ...] = ()
    without_analyses: tuple[str, ...] = ()
    noise: float | None = None
    rounds: int | None = None

    def words(self) -> tuple[str, ...]:
        """One line for each thing that is wanted."""
        return (
            *(f"without the variable {v}" for v in self.without_variables),
            *(f"without the analysis {a}" for a in self.without_analyses),
            *((f"a noise multiplier of at least {self.noise:g}",) if self.noise is not None else ()),
            *((f"at most {self.rounds} rounds of a method",) if self.rounds is not None else ()),
        )

    def plain(self) -> dict[str, Any]:
        return {
            "without_variables": list(self.without_variables), "without_analyses": list(self.without_analyses),
            "noise": self.noise, "rounds": self.rounds,
        }  # fmt: skip


@dataclass(frozen=True)
class Counter:
    """A site's counter-proposal to a study (digest, hex), as the lead reads it; signed by its node and its custodian."""

    study: str
    site: str
    custodian: str
    wanted: Wanted
    why: str
    at: str
    identity: str


@dataclass(frozen=True)
class RefusedStudy:
    """A custodian's refusal of a study (digest, hex), as the coordinator hears of it. `key` is the custodian's (hex)."""

    study: str
    site: str
    custodian: str
    key: str
    reason: str
    at: str
    statement: str


def refuse(folder: Path, study: str, private: bytes, *, why: str, now: datetime | None = None) -> Statement:
    """Say no to a study, with a reason; a later approval is possible. Raises `KeyProblem`, `NotApproved` (rule
    `reason_missing`, or `life_refuse` where it was approved: that is withdrawn instead)."""
    _reason(why)
    return _say(folder, study, "refusal", "refuse", private, {"reason": why.strip()}, now)


def refusal_notice(said: Statement, node: bytes, custodian: bytes) -> bytes:
    """A refusal for the others, by the private keys of the site's node and of the custodian who refused."""
    return signed(REFUSAL, {**said.facts, "statement": said.digest}, node, custodian)


def is_refusal(raw: bytes) -> bool:
    """Whether a notice is one of a refusal; nothing is verified. Raises `StatementInvalid` for what is no statement."""
    return read_statement(raw, "the notice").kind == REFUSAL


def read_refusal(raw: bytes, study: str, roster: Roster, site: str) -> RefusedStudy:
    """A site's refusal of this very study. Raises `StatementInvalid`: altered, of another study or site, or not signed by that
    site's node and a custodian."""
    said = read_statement(raw, "the notice of a refusal")
    try:
        names = ("study", "site", "custodian", "reason", "at", "statement")
        found = RefusedStudy(key=said.signers[-1], **{name: str(said.facts[name]) for name in names})
    except KeyError as error:
        raise StatementInvalid("the notice of a refusal is not whole") from error
    if (said.kind, found.study, found.site) != (REFUSAL, study, site):
        raise StatementInvalid("the notice is about another study or site", rule="notice")
    if site not in roster or said.signers[0] != roster.key(site).hex() or len(set(said.signers)) < 2:
        raise StatementInvalid(f"the refusal of {site} is not signed by that site's node and custodian", rule="notice")
    return found


def counter(
    folder: Path, study: Study, digest: str, private: bytes, node: bytes, wanted: Wanted, *, why: str,
    now: datetime | None = None,
) -> bytes:  # fmt: skip
    """Answer with what the site would do instead; the file for the lead, signed by custodian and node (private keys).

    Raises `NotApproved`: rule `counter` where nothing that the study has is wanted otherwise, `reason_missing`, `life_counter`.
    """
    _reason(why)
    fits(study, wanted)
    said = _say(folder, digest, "counter", "counter", private, {"reason": why.strip(), "wanted": wanted.plain()}, now)
    return signed(COUNTER, {**said.facts, "statement": said.digest}, node, private)


def close(folder: Path, study: str, node: bytes, *, why: str, now: datetime | None = None) -> Statement | None:
    """The end of a study at a site, signed by its node: nothing follows. None where nothing was ever said of it here, or where
    it ended before."""
    said = read_chain(chain_of(folder, study))
    if not said or state_of(said) == "closed":
        return None
    return _write(folder, study, "closing", {"reason": why}, node, "", now)


def fits(study: Study, wanted: Wanted) -> None:
    """Nothing if each wish is about something in the study. Raises `NotApproved`, rule `counter`."""
    names = {a.name for a in study.analyses}
    unknown = [v for v in wanted.without_variables if v not in study.variables] + [
        a for a in wanted.without_analyses if a not in names
    ]
    if unknown:
        raise NotApproved(
            f"the study has no {unknown[0]!r}", rule="counter", help="`fivefold study show STUDY` lists variables and analyses."
        )
    noise = study.privacy.differential_privacy
    if wanted.noise is not None and (noise is None or wanted.noise <= noise.noise_multiplier):
        now = "no noise at all" if noise is None else f"a multiplier of {noise.noise_multiplier:g} already"
        raise NotApproved(
            f"the study has {now}", rule="counter",
            help="Ask for a larger one; a study without noise needs a new text by its lead.",
        )  # fmt: skip
    if not wanted.words() or (wanted.rounds is not None and wanted.rounds < 1):
        raise NotApproved(
            "nothing is wanted otherwise", rule="counter", help="Give --without, --without-analysis, --noise or --rounds."
        )


def read_counter(raw: bytes, study: Study, digest: str) -> Counter:
    """A counter-proposal to this very study. Raises `StatementInvalid`: altered, about another study, or not signed by the node
    that the study names for the site."""
    said = read_statement(raw, "the counter-proposal")
    try:
        f: Mapping[str, Any] = said.facts
        w = f["wanted"]
        wanted = Wanted(
            tuple(map(str, w["without_variables"])), tuple(map(str, w["without_analyses"])),
            None if w["noise"] is None else float(w["noise"]), None if w["rounds"] is None else int(w["rounds"]),
        )  # fmt: skip
        found = Counter(
            str(f["study"]), str(f["site"]), str(f["custodian"]), wanted, str(f["reason"]), str(f["at"]), said.digest
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StatementInvalid("the counter-proposal is not whole") from error
    node = next((s.public_key for s in study.sites if s.name == found.site), None)
    if said.kind != COUNTER or found.study != digest:
        raise StatementInvalid("the counter-proposal is about another study", help="Ask the site for one to this version.")
    if node is None or node not in said.signers or len(set(said.signers)) < 2:
        raise StatementInvalid(f"the counter-proposal of {found.site} is not signed by that site's node and custodian")
    return found


def _reason(why: str) -> None:
    if not why.strip():
        raise NotApproved("an answer of this kind needs a written reason", rule="reason_missing", help="Give it with --why.")


def _say(
    folder: Path, study: str, kind: str, what: What, private: bytes, facts: Mapping[str, Any], now: datetime | None
) -> Statement:
    now = now or datetime.now(UTC)
    after(state_of(read_chain(chain_of(folder, study))), what)
    who = custody_of(folder, now.date()).may_sign(public_of(private).hex(), now.date())
    return _write(folder, study, kind, facts, private, who.name, now)


def _write(
    folder: Path, study: str, kind: str, facts: Mapping[str, Any], private: bytes, who: str, now: datetime | None
) -> Statement:
    now = now or datetime.now(UTC)
    at = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    site = custody_of(folder, now.date()).policy.site
    return write(chain_of(folder, study), kind, {"study": study, "site": site, "custodian": who, **facts, "at": at}, private)
