"""The lead's signed word that a study is proposed: which version, why, and which earlier one it takes the place of.

The study's own signature says who signed what; this says when and why, with the table of threats that the lead saw, and travels
beside it (`STUDY.proposal.json`). A site keeps the one that it was shown, the coordinator the one that a run began with; the
research package holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import public_of
from fivefold.errors import KeyProblem, StatementInvalid
from fivefold.governance.approvals import dictionary_digest
from fivefold.governance.life import Act
from fivefold.governance.method_code import files_of_study
from fivefold.governance.statements import read_statement, signed
from fivefold.governance.threats import as_json as threats_of
from fivefold.protocol.encoding import digest as digest_of
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy

KIND = "proposal"


@dataclass(frozen=True)
class Proposal:
    """A proposed version of a study (digest, hex). `supersedes`: the digest of the version before, if there is one; `answers`:
    the counter-proposals (digests of their files) that it takes up. `code`: digest over the files of its methods. `threats`:
    what `study threats` said to the lead, threat → covered, in part or open."""

    study: str
    dictionary: str
    code: str
    version: int
    supersedes: str
    answers: tuple[str, ...]
    lead: str
    key: str
    why: str
    at: str
    identity: str
    threats: Mapping[str, str] = field(default_factory=dict)

    def act(self) -> Act:
        return Act("propose", "lead", self.key, self.lead, self.at, self.why, self.study, proof=self.identity)


def propose(
    found: SignedStudy, private: bytes, *, why: str = "", before: Proposal | None = None, answers: tuple[str, ...] = (),
    now: datetime | None = None,
) -> bytes:  # fmt: skip
    """The proposal of a signed study, by its lead's private key, with the table of threats to it. Raises `KeyProblem` for any
    other key, `StudyInvalid` or `FormulaInvalid` where an analysis cannot be read."""
    study = found.study
    if public_of(private).hex() != study.lead.public_key:
        raise KeyProblem(f"only the lead, {study.lead.name}, proposes this study", help="Sign with the lead's key.")
    facts = {
        "study": found.digest,
        "dictionary": dictionary_digest(study.dictionary).hex(),
        "code": code_digest(study),
        "version": 1 if before is None else before.version + 1,
        "supersedes": "" if before is None else before.study,
        "answers": list(answers),
        "lead": study.lead.name,
        "why": why.strip() or study.agreements.purpose,
        "threats": threats_of(study),
        "at": (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return signed(KIND, facts, private)


def read_proposal(raw: bytes, study: Study, digest: str) -> Proposal:
    """The proposal of this very study, by its lead. Raises `StatementInvalid`."""
    said = read_statement(raw, "the proposal")
    f: Mapping[str, Any] = said.facts
    if said.kind != KIND or f.get("study") != digest or said.signers != (study.lead.public_key,):
        raise StatementInvalid(
            "the proposal is about another study, or not signed by its lead",
            help="Take it away, or have the lead sign the study again: `fivefold study sign STUDY --replace`.",
        )
    try:
        return Proposal(
            digest, str(f["dictionary"]), str(f["code"]), int(f["version"]), str(f["supersedes"]),
            tuple(map(str, f["answers"])), str(f["lead"]), said.signers[0], str(f["why"]), str(f["at"]), said.digest,
            {str(t["threat"]): str(t["status"]) for t in f["threats"]},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise StatementInvalid("the proposal is not whole") from error


def told_otherwise(said: Proposal, study: Study) -> tuple[str, ...]:
    """Where the table of threats that the lead signed is not what this installation says of the study: a line for each."""
    here = {t["threat"]: t["status"] for t in threats_of(study)}
    names = dict.fromkeys((*here, *said.threats))
    return tuple(
        f"{name}: {here.get(name, 'not looked at')} by this installation, {said.threats.get(name, 'not looked at')} as proposed"
        for name in names
        if here.get(name) != said.threats.get(name)
    )


def beside(signed_study: Path) -> Path:
    """Where the proposal of a signed file lies: `study.proposal.json` beside `study.signed.json`."""
    name = signed_study.name
    stem = name.removesuffix(".signed.json") if name.endswith(".signed.json") else signed_study.stem
    return signed_study.with_name(f"{stem}.proposal.json")


def found_beside(signed_study: Path, found: SignedStudy) -> bytes:
    """The bytes of the proposal beside a signed file; empty where there is none. Raises `StatementInvalid` for a wrong one."""
    path = beside(signed_study)
    if not path.is_file():
        return b""
    raw = path.read_bytes()
    read_proposal(raw, found.study, found.digest)
    return raw


def code_digest(study: Study) -> str:
    """SHA-256 (hex) over the files of the study's methods: what an approval binds besides study and dictionary."""
    return digest_of(sorted(files_of_study(study).items())).hex()


def assumed(study: Study, digest: str, at: str = "") -> Act:
    """The act of proposing where no proposal came with the study: its signature alone, at a time that nobody wrote down."""
    return Act("propose", "lead", study.lead.public_key, study.lead.name, at, study.agreements.purpose, digest)
