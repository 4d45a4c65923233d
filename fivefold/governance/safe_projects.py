"""Safe projects: is this use of the data right? Purpose, benefit, ethics, agreement and end, and the word of enough reviewers.

Reviews are signed statements at the site, one chain for each study; the last word of each reviewer counts. An approval counts
only with as many reviews from as many organisations as the policy asks for, and nobody reviews their own study.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from fivefold.auth.keys import public_of
from fivefold.errors import PolicyRefuses, StatementInvalid
from fivefold.governance.custody import Custody
from fivefold.governance.policy import Decision, Policy, expiry
from fivefold.governance.register import Register, register_of
from fivefold.governance.statements import read_chain, write
from fivefold.study.consistency import placeholder
from fivefold.study.definition import Study

Verdict = Literal["supports", "objects"]
MAX_AGREEMENT_BYTES = 64 << 20


@dataclass(frozen=True)
class Review:
    """A reviewer's last word on a study. `statement` is the digest of the signed file."""

    name: str
    organisation: str
    key: str
    verdict: Verdict
    reason: str
    at: str
    statement: str


def judge(
    policy: Policy, study: Study, digest: str, today: date, *, folder: Path | None = None, register: Register | None = None,
    custodian: str = "",
) -> list[Decision]:  # fmt: skip
    """What can be said of the study's purpose and agreements, and what its reviewers said. Without a site's `folder`: the study
    alone, its reviews and files left out. `custodian`: the key that approves or approved, which is no second person's."""
    here = _at_site(policy, study, digest, today, folder, register, custodian) if folder else ()
    return [*_stated(policy, study, today), *here]


def of_study(study: Study, today: date) -> Iterator[Decision]:
    """What any site asks of the study itself: its purpose, its ethics, its last day. Raises `PolicyRefuses` for no day."""
    agreed = study.agreements
    told = (("purpose", "purpose", agreed.purpose), ("ethics", "reference of an ethics approval", agreed.ethics))
    for rule, words, text in told:
        stated = bool(text.strip()) and not placeholder(text)
        yield Decision(stated, f"projects.{rule}", 0, f"{rule}: {text}" if stated else f"the study states no {words}")
    last = expiry(study)
    yield Decision(today <= last, "projects.expires", 0, f"the study's agreements end on {last}")


def _stated(policy: Policy, study: Study, today: date) -> Iterator[Decision]:
    """What the study itself has to say, and this site's own conditions on it."""
    yield from of_study(study, today)
    agreed, rules, last = study.agreements, policy.projects, expiry(study)
    if rules is None:
        return
    if rules.public_benefit:
        why = (
            f"public benefit: {agreed.public_benefit}" if agreed.public_benefit else "the study states no benefit to the public"
        )
        yield Decision(bool(agreed.public_benefit), "projects.public_benefit", policy.line("projects.public_benefit"), why)
    if rules.max_days is not None:
        days = (last - today).days
        why = f"the study would run for {days} days more, and this site admits {rules.max_days}"
        yield Decision(days <= rules.max_days, "projects.max_days", policy.line("projects.max_days"), why)


def _at_site(
    policy: Policy, study: Study, digest: str, today: date, folder: Path, register: Register | None, custodian: str
) -> Iterator[Decision]:
    """The agreement's file as it lies at the site, and the reviews."""
    rules = policy.projects
    if rules is None:
        yield Decision(True, "projects", 0, "this site asks for no reviews and no agreement of its own")
        return
    if rules.data_sharing is not None:
        yield _agreement(policy, study, folder / rules.data_sharing)
    if rules.reviewers:
        yield _enough(policy, study, reviews(folder, digest), today, register, custodian)


def _agreement(policy: Policy, study: Study, path: Path) -> Decision:
    rule = "projects.data_sharing"
    line, asked = policy.line(rule), study.agreements.data_sharing
    if not asked:
        return Decision(False, rule, line, "the study names no data-sharing agreement")
    found = file_digest(path)
    if found is None:
        return Decision(False, rule, line, f"the data-sharing agreement {path.name} is not at this site")
    same = found == asked.lower()
    words = "is the one that the study names" if same else "is not the one that the study names"
    return Decision(same, rule, line, f"the data-sharing agreement {path.name} {words}", f"sha256:{found}")


def file_digest(path: Path) -> str | None:
    """SHA-256 (hex) of a file at the site; None where there is none, or it is larger than 64 MiB."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_AGREEMENT_BYTES + 1)
    except OSError:
        return None
    return hashlib.sha256(data).hexdigest() if len(data) <= MAX_AGREEMENT_BYTES else None


def _enough(
    policy: Policy, study: Study, said: Mapping[str, Review], today: date, register: Register | None, custodian: str
) -> Decision:
    """The two-person rule, over those whose word counts today: another person than the custodian who approves."""
    assert policy.projects is not None
    rules, rule = policy.projects, "projects.reviewers"
    line = policy.line(rule)
    counted = [r for r in said.values() if _counts(study, r, today, register)]
    against = [r for r in counted if r.verdict == "objects"]
    if against:
        return Decision(False, rule, line, f"{against[0].name} objects to the study: {against[0].reason}", _evidence(against))
    approver = register.people[custodian].name.casefold() if register is not None and custodian in register.people else ""
    persons = {r.name.casefold(): r for r in reversed(counted)}  # one person, whatever keys and houses
    counted = [r for name, r in persons.items() if name != approver]
    places = {r.organisation.casefold() for r in counted}
    words = f"{len(counted)} of {rules.reviewers} reviewers support the study, from {len(places)} organisations"
    enough = len(counted) >= rules.reviewers and len(places) >= rules.organisations
    if not enough and rules.organisations:
        words += f" ({rules.organisations} are needed)"
    return Decision(enough, rule, line, words, _evidence(counted))


def _counts(study: Study, review: Review, today: date, register: Register | None) -> bool:
    person = register.people.get(review.key) if register is not None else None
    if person is None or own_study(study, person.name, review.key):
        return False
    return person.holds("reviewer", today) or person.holds("custodian", today)


def own_study(study: Study, name: str, key: str) -> bool:
    """Whether somebody would review a study of their own: its lead, or who runs one of its nodes."""
    return key == study.lead.public_key or name.casefold() == study.lead.name.casefold() or key in {
        s.public_key for s in study.sites
    }  # fmt: skip


def review(
    folder: Path,
    custody: Custody,
    study: Study,
    digest: str,
    private: bytes,
    *,
    verdict: Verdict = "supports",
    reason: str = "",
    now: datetime | None = None,
) -> Review:
    """Sign a word on a study, as a reviewer of the site's register or as one of its custodians. Raises `PolicyRefuses` (rule
    `projects.reviewers` or `own_study`)."""
    now = now or datetime.now(UTC)
    today = now.astimezone(UTC).date()
    key = public_of(private).hex()
    person = register_of(folder, custody, today).people.get(key)
    if person is None or not (person.holds("reviewer", today) or person.holds("custodian", today)):
        raise PolicyRefuses(
            "the key that signs belongs to no reviewer in this site's register", rule="projects.reviewers",
            help="A custodian grants the role: `fivefold site people grant … --role reviewer`.",
        )  # fmt: skip
    if own_study(study, person.name, key):
        raise PolicyRefuses("nobody reviews their own study", rule="own_study", help="Ask another reviewer.")
    if verdict == "objects" and not reason.strip():
        raise PolicyRefuses("an objection needs a reason", rule="reason_missing", help="Give it with --reason.")
    facts = {
        "study": digest,
        "site": custody.policy.site,
        "name": person.name,
        "organisation": person.organisation,
        "verdict": verdict,
        "reason": reason.strip(),
        "at": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    write(_chain(folder, digest), "review", facts, private)
    return reviews(folder, digest)[key]


def reviews(folder: Path, digest: str) -> dict[str, Review]:
    """The last word of each reviewer on a study, by key (hex). Raises `StatementInvalid`."""
    out = {}
    for said in read_chain(_chain(folder, digest)):
        f = said.facts
        try:
            if said.kind != "review" or f["study"] != digest or f["verdict"] not in ("supports", "objects"):
                raise ValueError("review")
            words = [str(f[name]) for name in ("name", "organisation", "verdict", "reason", "at")]
        except (KeyError, ValueError, TypeError) as error:
            raise StatementInvalid("a review at this site is not a whole one") from error
        name, organisation, verdict, reason, at = words
        out[said.signers[0]] = Review(
            name, organisation, said.signers[0], "objects" if verdict == "objects" else "supports", reason, at, said.digest
        )
    return out


def _evidence(found: list[Review]) -> str:
    return "; ".join(f"{r.name}, {r.organisation}: {r.verdict} ({r.at[:10]}, {r.statement[:16]})" for r in found)


def _chain(folder: Path, digest: str) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise PolicyRefuses("a study's digest is 64 hex digits", rule="projects.reviewers")
    return folder / "state" / "reviews" / digest
