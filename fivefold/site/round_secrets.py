"""What a site holds for a round of a secure sum, and how it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fivefold.errors import ProtocolViolation
from fivefold.privacy.secagg import keys
from fivefold.privacy.secagg.instance import Instance
from fivefold.protocol.messages import Advert


def violation(rule: str, why: str) -> ProtocolViolation:
    """The refusal of a request, by the name of its rule."""
    return ProtocolViolation(why, rule=rule, help="The request is not answered; ask the coordinator's operator for its log.")


@dataclass
class Secrets:
    """A site's secrets of a round. Python cannot overwrite what it let go; it can let go at once, and never write it down."""

    seal: keys.KeyPair
    mask: keys.KeyPair
    seed: bytes = field(repr=False)
    held: dict[str, tuple[bytes, bytes]] = field(repr=False, default_factory=dict)
    """Shares that were entrusted to this site, its own among them: owner → (of the seed, of the mask key)."""


@dataclass
class Round:
    """What a site holds for one round and attempt: its secrets until they have served, and what it said."""

    secret: Secrets | None
    advert: bytes
    adverts: Mapping[str, Advert] = field(default_factory=dict)
    key_list: bytes = b""
    shares: bytes = b""
    instance: Instance | None = None
    asked: bytes = b""
    masked: bytes = b""
    unmasked: bytes = b""
    wanted: int = 0
    """Recognised sites that this sum needs."""
    opened: dict[bytes, bytes] = field(default_factory=dict)
    """Requests to unmask, by identity, and their replies."""

    @property
    def secrets(self) -> Secrets:
        if self.secret is None:
            raise violation("round_over", "the secrets of this round and attempt have served, and are forgotten")
        return self.secret

    def erase(self) -> None:
        self.secret = None
