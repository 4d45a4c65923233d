"""How objections to a release travel: as a secure sum over all sites of the study, so that none of them is named.

Two signed statements of each site's node. The first brings a fresh key (X25519) for this very asking; the second the site's
objection, 0 or 1, in Z_2^32 under the masks that it shares with each other site (Bonawitz et al., 2017, with pair masks alone).
The masks cancel in the sum over *all* sites and in no other: a sum over some would, beside the whole, name the rest. Where a
site is silent there is no sum, and whoever is silent counts as objecting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fivefold.errors import ProtocolViolation, TooFewSites
from fivefold.governance.statements import Statement, read_statement, signed
from fivefold.privacy.secagg.keys import agree_all, pair_from_private
from fivefold.privacy.secagg.masks import apply_masks, pair_sign
from fivefold.privacy.secagg.ring import RING32, add_into, zeros
from fivefold.protocol.encoding import encode
from fivefold.protocol.messages import Roster

KEY, OBJECTION = "objection_key", "objection"
LEAST = 3
"""Sites; with two, each would learn the other's word."""


@dataclass(frozen=True)
class Asking:
    """What the sites are asked: a proposal (digest, hex) of a study (digest, hex). `nonce` (hex) tells one asking from
    another."""

    study: str
    proposal: str
    nonce: str

    def facts(self) -> dict[str, str]:
        return {"study": self.study, "proposal": self.proposal, "asking": self.nonce}


def offered(asking: Asking, site: str, private: bytes, node: bytes) -> bytes:
    """A site's key for this asking, signed by its node. `private`: X25519, 32 bytes, kept at the site."""
    public = pair_from_private(private).public.hex()
    return signed(KEY, asking.facts() | {"site": site, "public": public}, node)


def masked(
    asking: Asking, site: str, objects: bool, private: bytes, node: bytes, keys: Mapping[str, bytes], roster: Roster
) -> bytes:
    """A site's objection under its masks, signed by its node. `keys`: what every site of the roster offered.

    Raises `ProtocolViolation` (rule `objection`) where a site is missing or a statement is not its own, `TooFewSites`.
    """
    public, listed = read_keys(asking, keys, roster)
    if public[site] != pair_from_private(private).public:
        raise _wrong("the key in this site's place is not its own")
    others = [name for name in roster.names if name != site]
    contexts = [(public[name], _pair(asking, listed, roster.in_order((site, name)))) for name in others]
    vector = zeros(1, RING32)
    vector[0] = int(objects)
    seeds = agree_all(private, contexts)
    signs = [pair_sign(roster.place[site], roster.place[name]) for name in others]
    apply_masks(vector, RING32, list(zip(seeds, signs, strict=True)))
    return signed(OBJECTION, asking.facts() | {"site": site, "keys": listed, "masked": int(vector[0])}, node)


def total(asking: Asking, keys: Mapping[str, bytes], said: Mapping[str, bytes], roster: Roster) -> int:
    """How many sites object. Raises `ProtocolViolation` (rule `objection`) unless every site's word is here, and its own."""
    _, listed = read_keys(asking, keys, roster)
    summed = zeros(1, RING32)
    for name, statement in _each(OBJECTION, asking, said, roster).items():
        if statement.facts.get("keys") != listed:
            raise _wrong(f"{name} answered to other keys")
        value = statement.facts.get("masked")
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise _wrong(f"what {name} said is no number of the ring")
        add_into(summed, np.array([value], dtype=RING32.limb), RING32)
    if summed[0] > len(roster.names):
        raise _wrong("the sum is more than all sites")
    return int(summed[0])


def read_keys(asking: Asking, keys: Mapping[str, bytes], roster: Roster) -> tuple[dict[str, bytes], str]:
    """Each site's key (X25519, 32 bytes) and the digest (hex) of the whole list, which every mask binds."""
    if len(roster.names) < LEAST:
        raise TooFewSites("objections of fewer than three sites have no secure sum", rule="minimum_sites")
    found = {}
    for name, said in _each(KEY, asking, keys, roster).items():
        try:
            found[name] = bytes.fromhex(str(said.facts["public"]))
        except (KeyError, ValueError) as error:
            raise _wrong(f"what {name} offered is no key") from error
    return found, hashlib.sha256(encode([(name, found[name]) for name in roster.names])).hexdigest()


def _each(kind: str, asking: Asking, raw: Mapping[str, bytes], roster: Roster) -> dict[str, Statement]:
    """One statement of each site, signed by the node that the study names."""
    if set(raw) != set(roster.names):
        raise _wrong("every site of the study takes part, or none")
    out = {}
    for name in roster.names:
        said = read_statement(raw[name], f"{kind} of {name}")
        ours = {fact: said.facts.get(fact) for fact in asking.facts()} == asking.facts()
        if said.kind != kind or not ours or said.facts.get("site") != name or said.signers != (roster.key(name).hex(),):
            raise _wrong(f"what stands in {name}'s place is not its own word to this asking")
        out[name] = said
    return out


def _pair(asking: Asking, listed: str, names: Sequence[str]) -> bytes:
    return encode((OBJECTION, asking.study, asking.proposal, asking.nonce, listed, tuple(names)))


def _wrong(why: str) -> ProtocolViolation:
    return ProtocolViolation(why, rule="objection")
