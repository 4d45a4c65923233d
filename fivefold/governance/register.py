"""A site's register of people: who holds which role until when, which training they have, which terms of use they accepted.

It lies at the site as a chain of signed statements (`state/people`). Custodians whom `site.yaml` lists may grant every other
role; they can let somebody grant roles on. Nobody grants more than they hold, nor beyond their own last day, and nobody
certifies their own training. What a signer no longer stands for is void, as an approval would be; a revocation always counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

from fivefold.auth.keys import public_from_hex, public_of
from fivefold.errors import FivefoldError, PolicyRefuses, StatementInvalid
from fivefold.governance.custody import Custody
from fivefold.governance.policy_keys import ROLES, Role
from fivefold.governance.statements import Statement, read_chain, write

SEPARATED: tuple[Role, ...] = ("lead", "checker", "operator")
"""Nobody holds two of these: who asks, who lets go, and who runs the machines are three persons."""
GRANTED = tuple(role for role in ROLES if role != "custodian")
"""Custodians are named by site.yaml alone."""


@dataclass(frozen=True)
class Person:
    """Somebody with a key (Ed25519, 64 hex digits). Days are the last on which a thing holds; `statement` is the digest of the
    grant in force."""

    name: str
    organisation: str
    key: str
    roles: Mapping[Role, date] = field(default_factory=dict)
    grants: Mapping[Role, date] = field(default_factory=dict)
    """The roles that this person may grant on."""
    training: Mapping[str, date] = field(default_factory=dict)
    terms: Mapping[str, date] = field(default_factory=dict)
    statement: str = ""

    def holds(self, role: Role, day: date) -> bool:
        return role in self.roles and day <= self.roles[role]


@dataclass(frozen=True)
class Register:
    """Everybody in the register, by key (hex); the site's custodians are among them."""

    people: Mapping[str, Person]
    revoked: frozenset[str] = frozenset()
    entries: int = 0
    head: str = ""
    """Digest of the last statement; empty where there is none."""

    def who(self, role: Role, day: date) -> tuple[Person, ...]:
        """Those who hold a role on a day."""
        return tuple(p for p in self.people.values() if p.holds(role, day))

    def may_grant(self, key: str, day: date) -> Mapping[Role, date]:
        """The roles that a key may grant, each with the last day until which it may."""
        person = self.people.get(key)
        if person is None or key in self.revoked:
            return {}
        until = person.roles.get("custodian")
        found = dict.fromkeys(GRANTED, until) if until is not None else dict(person.grants)
        return {role: last for role, last in found.items() if day <= last}


def register_of(folder: Path, custody: Custody, today: date) -> Register:
    """The register at a site folder, as its statements come to today. Raises `StatementInvalid` for one that was altered or
    taken away."""
    said = read_chain(_chain(folder))
    here = custody.policy.site
    listed = {
        key: Person(who.name, here, key, {"custodian": who.until})
        for key, who in custody.custodians.items()
        if custody.standing(key, today) is None or key in custody.replaced
    }
    register = Register(listed, frozenset(custody.revoked))
    for statement in said:
        try:
            register = _after(register, statement, custody, today)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise StatementInvalid("a statement in state/people is not a whole one") from error
    return replace(register, entries=len(said), head=said[-1].digest if said else "")


def grant(
    folder: Path,
    custody: Custody,
    private: bytes,
    *,
    name: str,
    organisation: str,
    key: str,
    roles: Sequence[Role],
    until: date,
    may_grant: Sequence[Role] = (),
    now: datetime | None = None,
) -> Person:
    """Give somebody roles until a day. Raises `PolicyRefuses` whose rule is `grant` (more than the granter holds) or
    `separation_of_duties`."""
    now = now or datetime.now(UTC)
    today = now.astimezone(UTC).date()
    register, signer = register_of(folder, custody, today), public_of(private).hex()
    public_from_hex(key)
    mine = register.may_grant(signer, today)
    for role in (*roles, *may_grant):
        if role == "custodian":
            raise _no("grant", "custodians are named by site.yaml alone", "Write the key under `custodians:`, and sign.")
        if role not in mine:
            raise _no("grant", f"the key that signs may not grant the role {role}: nobody grants more than they hold")
        if until > mine[role]:
            raise _no("grant", f"the key that signs may grant {role} until {mine[role]}, not until {until}")
    if key in register.revoked:
        raise _no("grant", "this key was revoked", "Make a fresh key with `fivefold keys new FILE`.")
    if key == custody.node:
        raise _no("grant", "the node's own key is nobody's", "Give each person a key of their own.")
    if not roles:
        raise _no("grant", "no role was named", "Name one with --role.")
    _apart(register, name, key, roles, today)
    facts = {
        "person": name,
        "organisation": organisation,
        "key": key,
        "roles": sorted(set(roles)),
        "until": until.isoformat(),
        "may_grant": sorted(set(may_grant)),
    }
    write(_chain(folder), "grant", facts | _tail(custody, now), private)
    return register_of(folder, custody, today).people[key]


def train(
    folder: Path,
    custody: Custody,
    private: bytes,
    *,
    key: str,
    course: str,
    until: date,
    certificate: str = "",
    now: datetime | None = None,
) -> Person:
    """Certify somebody's training until a day; `certificate` is the SHA-256 (hex) of its file. Raises `PolicyRefuses` (rule
    `own_training`, `grant` or `people`)."""
    now = now or datetime.now(UTC)
    today = now.astimezone(UTC).date()
    register, signer = register_of(folder, custody, today), public_of(private).hex()
    _known(register, key)
    if signer == key:
        raise _no("own_training", "nobody certifies their own training", "Somebody else who may grant signs it.")
    if not register.may_grant(signer, today):
        raise _no("grant", "the key that signs may grant nothing here, so it certifies no training either")
    facts = {"key": key, "course": course, "until": until.isoformat(), "certificate": certificate}
    write(_chain(folder), "training", facts | _tail(custody, now), private)
    return register_of(folder, custody, today).people[key]


def accept(
    folder: Path, custody: Custody, private: bytes, *, key: str, terms: str, until: date, now: datetime | None = None
) -> Person:
    """Write down that somebody accepted a version of the terms of use; signed by themselves, or by somebody who may grant and
    holds the paper. Raises `PolicyRefuses`."""
    now = now or datetime.now(UTC)
    today = now.astimezone(UTC).date()
    register, signer = register_of(folder, custody, today), public_of(private).hex()
    _known(register, key)
    if signer != key and not register.may_grant(signer, today):
        raise _no("grant", "the terms are accepted by the person's own key, or by one that may grant")
    facts = {"key": key, "terms": terms, "until": until.isoformat()}
    write(_chain(folder), "terms", facts | _tail(custody, now), private)
    return register_of(folder, custody, today).people[key]


def dismiss(folder: Path, custody: Custody, private: bytes, *, key: str, reason: str, now: datetime | None = None) -> Statement:
    """Take every role from somebody, at once and with all that they granted. Raises `PolicyRefuses`."""
    now = now or datetime.now(UTC)
    register, signer = register_of(folder, custody, now.astimezone(UTC).date()), public_of(private).hex()
    _known(register, key)
    if "custodian" in register.people[key].roles:
        raise _no("grant", "a custodian's key is revoked, not dismissed", "Use `fivefold site keys revoke`.")
    if signer != key and not register.may_grant(signer, now.astimezone(UTC).date()):
        raise _no("grant", "the key that signs may grant nothing here, so it takes nothing away either")
    return write(_chain(folder), "dismissal", {"key": key, "reason": reason} | _tail(custody, now), private)


def entries_of(folder: Path, key: str) -> tuple[str, ...]:
    """Digests of what a key signed in the register: what a rotation of this key keeps."""
    return tuple(s.digest for s in read_chain(_chain(folder)) if key in s.signers)


def _after(register: Register, said: Statement, custody: Custody, today: date) -> Register:
    """The register after one more statement; what its signer does not stand for changes nothing."""
    facts, key, signer = said.facts, str(said.facts["key"]), said.signers[0]
    if said.kind == "dismissal":
        left = {k: p for k, p in register.people.items() if k != key}
        return replace(register, people=left, revoked=register.revoked | {key})
    if signer in custody.custodians and custody.standing(signer, today, statement=said.digest) is not None:
        return register
    if signer in register.revoked:
        return register
    day = date.fromisoformat(str(facts["at"])[:10])
    mine, person = register.may_grant(signer, day), register.people.get(key)
    if said.kind == "grant":
        until = date.fromisoformat(facts["until"])
        given = [r for r in facts["roles"] if r in mine]
        before = person or Person(str(facts["person"]), str(facts["organisation"]), key)
        person = replace(
            before,
            roles=dict(before.roles) | {r: min(until, mine[r]) for r in given},
            grants=dict(before.grants) | {r: min(until, mine[r]) for r in facts["may_grant"] if r in mine},
            statement=said.digest,
        )
        changed = bool(given)
    elif person is None:
        return register
    elif said.kind == "training":
        person = replace(person, training=dict(person.training) | {str(facts["course"]): date.fromisoformat(facts["until"])})
        changed = bool(mine) and signer != key
    elif said.kind == "terms":
        person = replace(person, terms=dict(person.terms) | {str(facts["terms"]): date.fromisoformat(facts["until"])})
        changed = bool(mine) or signer == key
    else:
        raise ValueError(said.kind)
    return replace(register, people=dict(register.people) | {key: person}) if changed else register


def _apart(register: Register, name: str, key: str, roles: Sequence[Role], today: date) -> None:
    same = [p for p in register.people.values() if p.key == key or p.name.casefold() == name.strip().casefold()]
    for person in same:
        if person.key == key and person.name.casefold() != name.strip().casefold():
            raise _no("grant", f"this key is {person.name}'s", "Give each person a key of their own.")
    held = {*roles, *(r for p in same for r in p.roles if p.holds(r, today))}
    twice = [role for role in SEPARATED if role in held]
    if len(twice) > 1:
        raise _no("separation_of_duties", f"{name} would be {' and '.join(twice)}: these are different persons")


def _known(register: Register, key: str) -> None:
    if key not in register.people:
        raise _no("people", "this key belongs to nobody in the register", "Grant a role first: `fivefold site people grant`.")


def _tail(custody: Custody, now: datetime) -> dict[str, str]:
    at = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"site": custody.policy.site, "at": at}


def _no(rule: str, why: str, help: str = "Ask a custodian of the site.") -> FivefoldError:
    return PolicyRefuses(why, rule=rule, help=help)


def _chain(folder: Path) -> Path:
    return folder / "state" / "people"


def lines(register: Register, today: date) -> Iterator[str]:
    """The register as people read it: one line a person, one a training or acceptance."""
    for person in sorted(register.people.values(), key=lambda p: p.name):
        roles = ", ".join(f"{r} until {d}{'' if today <= d else ' (ended)'}" for r, d in sorted(person.roles.items()))
        on = f"; may grant {', '.join(sorted(person.grants))}" if person.grants else ""
        yield f"{person.name}, {person.organisation}  {person.key[:16]}…  {roles}{on}"
        for kind, held in (("training", person.training), ("terms of use", person.terms)):
            for what, until in sorted(held.items()):
                yield f"    {kind} {what} until {until}{'' if today <= until else ' (lapsed)'}"
