"""Opening a masked sum: from signed updates and revealed shares to the total. The coordinator does it, and each site again.

Bonawitz et al., CCS 2017, figure 4, rounds 2 and 3. Because the site uses this same function over the signed messages of all, a
coordinator cannot pass off another total as the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fivefold.errors import ProtocolViolation
from fivefold.privacy.secagg.keys import agree_all
from fivefold.privacy.secagg.masks import pair_sign, unmask
from fivefold.privacy.secagg.ring import Ring, add_into, from_bytes, zeros
from fivefold.privacy.secagg.shamir import combine_many
from fivefold.protocol.encoding import digest, encode
from fivefold.protocol.envelope import Message
from fivefold.protocol.questions import Array


def key_list_digest(keys: Mapping[str, Message]) -> bytes:
    """Binds everything that follows to one view of all keys: split views give garbage and never partial sums."""
    return digest([keys[name].content() for name in sorted(keys)])


def pair_context(view: bytes, one: str, other: str) -> bytes:
    """What a mask's seed is bound to: the whole key list, and the pair."""
    return encode(["mask", view, sorted([one, other])])


def seal_context(view: bytes, sender: str, receiver: str) -> bytes:
    """What a sealed share is bound to: the key list (and so study, run, round and attempt), from whom, to whom."""
    return encode(["seal", view, sender, receiver])


def opened(
    total: Array,
    ring: Ring,
    roster: Sequence[str],
    threshold: int,
    keys: Mapping[str, Message],
    members: Sequence[str],
    survivors: Sequence[str],
    shares: Mapping[str, Message],
) -> None:
    """Take all masks out of `total`, in place.

    `roster` orders the study's sites (Shamir's points are 1, 2, …); `members` masked towards each other; `survivors` are those
    in the total; `shares` are the unmask replies of at least `threshold` of them. Raises `ProtocolViolation` for too few.
    """
    point = {name: i + 1 for i, name in enumerate(roster)}
    givers = sorted(shares, key=roster.index)
    if len(givers) < threshold:
        raise ProtocolViolation("too few shares to open the sum", rule="threshold")
    lost = [name for name in members if name not in survivors]

    def gathered(part: str, owners: Sequence[str]) -> list[bytes]:
        if any(type(shares[g].body.get(part, {}).get(owner)) is not bytes for g in givers for owner in owners):
            raise ProtocolViolation("a site kept back a share of a site in the sum", rule="shares")
        sharings = [{point[g]: bytes(shares[g].body[part][owner]) for g in givers} for owner in owners]
        return combine_many(sharings, threshold) if sharings else []

    self_seeds = gathered("self", list(survivors))
    view = key_list_digest(keys)
    pairs: list[tuple[bytes, int]] = []
    for name, private in zip(lost, gathered("pair", lost), strict=True):
        peers = [(bytes(keys[s].body["mask"]), pair_context(view, s, name)) for s in survivors]
        seeds = agree_all(private, peers)
        pairs += [(seed, pair_sign(point[s], point[name])) for seed, s in zip(seeds, survivors, strict=True)]
    unmask(total, ring, self_seeds, pairs)


def summed(masked: Mapping[str, Message], survivors: Sequence[str], width: int, ring: Ring) -> Array:
    """The sum of the survivors' masked updates."""
    total = zeros(width, ring)
    for name in survivors:
        add_into(total, from_bytes(masked[name].body["vector"], width, ring), ring)
    return total
