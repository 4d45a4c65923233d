"""Who may sign at a site, now: the signed, versioned policy and the statements by which keys rotate and are revoked.

The first version of `site.yaml` is signed by a custodian whom it lists; every later one by a custodian of the version before. A
rotation is signed by the old key and the new one, and names the statements of the old key that stay in force, so that nobody
who finds the old key can date something back. A revoked key is dead at once, with everything that it alone signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from fivefold.auth import keys
from fivefold.errors import FivefoldError, KeyProblem, PolicyRefuses, StatementInvalid
from fivefold.governance.policy import FILE, Custodian, Policy
from fivefold.governance.statements import Statement, read_chain, store, write
from fivefold.study.lines import raw


@dataclass(frozen=True)
class Custody:
    """The policy in force and the standing of every key. Built by `custody_of`; nothing in it can be changed."""

    policy: Policy
    custodians: Mapping[str, Custodian]
    """By public key (hex): those that site.yaml lists, and those that a rotation brought."""
    replaced: Mapping[str, frozenset[str]]
    """Keys that were rotated away → the digests of their statements that stay in force."""
    revoked: frozenset[str]
    node: str
    """The node's public key (hex)."""

    def standing(self, key: str, day: date, *, statement: str = "") -> tuple[str, str] | None:
        """Why a custodian's key does not count (rule, sentence), or None. `statement` is the digest of what it signed
        earlier."""
        if key in self.revoked:
            return "custodian_key_revoked", "the key that signed was revoked"
        if key == self.node:
            return "node_key_cannot_approve", "the node's own key cannot speak for a custodian"
        if key not in self.custodians:
            return "custodian_key_unlisted", f"the key that signed belongs to no custodian in {FILE}"
        if key in self.replaced and statement not in self.replaced[key]:
            return "custodian_key_replaced", "the key that signed was replaced by another"
        if not self.custodians[key].holds(day):
            return "custodian_key_expired", f"the key of {self.custodians[key].name} is not valid on {day}"
        return None

    def may_sign(self, key: str, day: date) -> Custodian:
        """The custodian of a key that signs something today. Raises `KeyProblem` with the rule."""
        why = self.standing(key, day)
        if why is not None:
            raise KeyProblem(why[1], rule=why[0], help=f"Sign with the key of a custodian whom {FILE} lists (--key FILE).")
        return self.custodians[key]


def custody_of(folder: Path, today: date) -> Custody:
    """The policy in force at a site folder and its keys; read from disk each time, so that a revocation stops at once.

    Raises `PolicyRefuses` (rule `signature`) where site.yaml is not the text that a custodian signed, `StatementInvalid`
    where a statement was altered or removed.
    """
    policy = Policy.read(folder / FILE)
    versions = read_chain(_policies(folder))
    said = read_chain(_keys(folder))
    if not versions:
        raise _unsigned("no version of site.yaml is signed")
    last = versions[-1]
    if last.facts.get("digest") != policy.digest or last.facts.get("version") != policy.version:
        raise _unsigned(f"{FILE} is not the text that was signed as version {last.facts.get('version')}")
    if last.facts.get("keys", "") not in {"", *(s.digest for s in said)}:
        raise _unsigned("a statement about keys that this version of the policy knows is missing")
    custody = _standing(policy, policy.custodians, said, node_key(folder))
    signer = _signer(versions, said)
    why = custody.standing(signer, today, statement=last.digest)
    if why is not None:
        raise _unsigned(f"version {policy.version}: {why[1]}", rule=why[0])
    return custody


def sign_policy(folder: Path, private: bytes, *, now: datetime | None = None) -> Policy:
    """Sign the text of site.yaml as a new version; a copy of the text is kept in state/policy. Raises `PolicyRefuses` or
    `KeyProblem` with what to do."""
    now = now or datetime.now(UTC)
    text = raw(folder / FILE, missing=PolicyRefuses)
    policy = Policy.of(text)
    key = keys.public_of(private).hex()
    versions, said = read_chain(_policies(folder)), read_chain(_keys(folder))
    latest = versions[-1].facts if versions else {"version": 0}
    if latest.get("digest") == policy.digest:
        raise PolicyRefuses(
            f"version {policy.version} of {FILE} is signed already", help="Nothing needs to be done.", rule="version"
        )
    if policy.version != latest["version"] + 1:
        raise PolicyRefuses(
            f"{FILE}, line {policy.line('version')}: the new text needs version {latest['version'] + 1}, not {policy.version}",
            help=f"Write `version: {latest['version'] + 1}` and sign again.",
            rule="version",
        )
    node = node_key(folder)
    if node in {c.key for c in policy.custodians}:
        raise PolicyRefuses(
            f"{FILE} lists the node's own key as a custodian's",
            help="Give each custodian a key of their own.",
            rule="custodians",
        )
    before = _listed(versions[-1]) if versions else policy.custodians
    _standing(policy, before, said, node).may_sign(key, now.date())
    facts = {
        "version": policy.version,
        "site": policy.site,
        "digest": policy.digest,
        "custodians": [c.model_dump(mode="json", by_alias=True) for c in policy.custodians],
        "keys": said[-1].digest if said else "",
        "at": _time(now),
    }
    store(_policies(folder) / f"{policy.version:04d}-site.yaml", text)
    write(_policies(folder), "policy", facts, private)
    return policy


def rotate_custodian(
    folder: Path, old: bytes, new: bytes, *, until: date, keeps: tuple[str, ...] = (), now: datetime | None = None
) -> Statement:
    """Replace a custodian's key by another until a day. `keeps`: digests of statements of the old key that stay in force; the
    signature under the policy in force is kept by itself. Raises `KeyProblem`."""
    now = now or datetime.now(UTC)
    custody = custody_of(folder, now.date())
    was, becomes = keys.public_of(old).hex(), keys.public_of(new).hex()
    who = custody.may_sign(was, now.date())
    if until < now.date():
        raise KeyProblem(f"the new key would have ended on {until}, before today", help="Give a later day with --until.")
    if becomes in custody.custodians or becomes == custody.node or becomes in custody.revoked:
        raise KeyProblem(
            "the new key is in use already, or was revoked",
            rule="key_in_use",
            help="Make a fresh key with `fivefold keys new FILE`.",
        )
    policy = read_chain(_policies(folder))[-1]
    kept = sorted({*keeps, *([policy.digest] if was in policy.signers else [])})
    facts = {"role": "custodian", "name": who.name, "old": was, "new": becomes, "until": until.isoformat(), "keeps": kept}
    return write(_keys(folder), "rotate", facts | {"site": custody.policy.site, "at": _time(now)}, old, new)


def rotate_node(folder: Path, old: bytes, new: bytes, custodian: bytes, *, now: datetime | None = None) -> Statement:
    """Announce a new key of the node, signed by both keys and a custodian; the file goes to leads and peers, who compare it."""
    now = now or datetime.now(UTC)
    custody = custody_of(folder, now.date())
    custody.may_sign(keys.public_of(custodian).hex(), now.date())
    was, becomes = keys.public_of(old).hex(), keys.public_of(new).hex()
    if was != custody.node:
        raise KeyProblem("the old key is not the key of this node", help="Name the node's own key file.")
    if becomes in custody.custodians or becomes in custody.revoked or becomes == was:
        raise KeyProblem(
            "the new key is in use already, or was revoked",
            rule="key_in_use",
            help="Make a fresh key with `fivefold keys new FILE`.",
        )
    facts = {"role": "node", "old": was, "new": becomes, "site": custody.policy.site, "at": _time(now)}
    return write(_keys(folder), "rotate", facts, old, new, custodian)


def revoke_key(folder: Path, key: str, custodian: bytes, *, reason: str, now: datetime | None = None) -> Statement:
    """Declare a key (a custodian's, the node's, a peer's) dead, signed by any custodian, the holder of that key among them."""
    now = now or datetime.now(UTC)
    keys.public_from_hex(key)
    if not reason.strip():
        raise StatementInvalid("a revocation needs a written reason", rule="reason", help="Give it with --reason.")
    signer = keys.public_of(custodian).hex()
    said = read_chain(_keys(folder))
    policy = Policy.read(folder / FILE)
    custody = _standing(policy, policy.custodians, said, node_key(folder))
    if signer not in custody.custodians or (signer in custody.revoked and signer != key):
        raise KeyProblem(f"the key that signs belongs to no custodian in {FILE}", rule="custodian_key_unlisted")
    facts = {"key": key, "reason": reason, "site": custody.policy.site, "at": _time(now)}
    return write(_keys(folder), "revoke", facts, custodian)


def node_key(folder: Path) -> str:
    """The node's public key (hex), from `keys/node.pub`. Raises `KeyProblem`."""
    try:
        text = (folder / "keys" / "node.pub").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyProblem(
            "the site folder has no keys/node.pub", help="Make a site folder with `fivefold site init`."
        ) from error
    keys.public_from_hex(text)
    return text


def _standing(policy: Policy, listed: Sequence[Custodian], said: Sequence[Statement], node: str) -> Custody:
    """What a list of custodians and the statements about keys come to, in their order."""
    custodians = {c.key: c for c in listed}
    replaced: dict[str, frozenset[str]] = {}
    revoked = set(policy.revoked)
    for statement in said:
        if statement.kind == "revoke":
            revoked.add(str(statement.facts.get("key")))  # whoever signed it: a doubt closes, it never opens
            continue
        rotation = _rotation(statement)
        if rotation is not None and rotation[0] in custodians and rotation[0] not in revoked:
            old, new = rotation
            day, until = date.fromisoformat(statement.facts["at"][:10]), date.fromisoformat(statement.facts["until"])
            custodians.setdefault(new, Custodian.model_construct(name=custodians[old].name, key=new, since=day, until=until))
            replaced[old] = frozenset(statement.facts["keeps"])
    return Custody(policy, custodians, replaced, frozenset(revoked), node)


def _rotation(statement: Statement) -> tuple[str, str] | None:
    """The old and the new key of a custodian's rotation that both keys signed."""
    facts = statement.facts
    if statement.kind != "rotate" or facts.get("role") != "custodian":
        return None
    old, new = str(facts.get("old")), str(facts.get("new"))
    return (old, new) if {old, new} <= set(statement.signers) else None


def _signer(versions: Sequence[Statement], said: Sequence[Statement]) -> str:
    """The signer of the last version, each version signed by a custodian of the one before (or by a key rotated from such)."""
    rotated = {new: old for old, new in filter(None, map(_rotation, said))}
    allowed = {c.key for c in _listed(versions[0])}
    for statement in versions:
        origin, seen = statement.signers[0], set[str]()
        while origin not in allowed and origin in rotated and origin not in seen:
            seen.add(origin)
            origin = rotated[origin]
        if statement.kind != "policy" or origin not in allowed:
            raise _unsigned(
                f"version {statement.facts.get('version')} is signed by a key that the version before does not list"
            )
        allowed = {c.key for c in _listed(statement)}
    return versions[-1].signers[0]


def _listed(version: Statement) -> tuple[Custodian, ...]:
    """The custodians whom a signed version of the policy listed."""
    try:
        return tuple(Custodian.model_validate(c) for c in version.facts["custodians"])
    except (KeyError, TypeError, ValueError) as error:
        raise StatementInvalid("a signed version of the policy lists no custodians that can be read") from error


def _unsigned(why: str, *, rule: str = "signature") -> FivefoldError:
    return PolicyRefuses(why, rule=rule, help="The custodian raises its version and signs it with `fivefold site sign-policy`.")


def _policies(folder: Path) -> Path:
    return folder / "state" / "policy"


def _keys(folder: Path) -> Path:
    return folder / "state" / "keys"


def _time(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
