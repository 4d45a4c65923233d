"""Where a message belongs, and among whom: the roster of a study, and a place in its rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from fivefold.protocol.encoding import digest

Names = tuple[str, ...]
Blobs = tuple[bytes, ...]


@dataclass(frozen=True)
class Roster:
    """All sites of the signed study, in its order, with their Ed25519 public keys (32 bytes)."""

    names: Names
    keys: Blobs

    def __post_init__(self) -> None:
        if len(self.names) != len(self.keys) or any(len(set(part)) != len(part) for part in (self.names, self.keys)):
            raise ValueError("a roster gives each site one name and one key of its own")

    @cached_property
    def digest(self) -> bytes:
        return digest({"names": self.names, "keys": self.keys})

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Where each site stands, from 0."""
        return {name: i for i, name in enumerate(self.names)}

    def __contains__(self, name: object) -> bool:
        return name in self.place

    def key(self, name: str) -> bytes:
        return self.keys[self.place[name]]

    def in_order(self, names: Iterable[str]) -> Names:
        """Some of the sites, in the study's order."""
        chosen = set(names)
        return tuple(n for n in self.names if n in chosen)


@dataclass(frozen=True)
class Place:
    """Where a message belongs. `study` is the signed study's digest (hex), rounds and attempts count from 1."""

    study: str
    run: str
    round: int
    attempt: int

    def following(self) -> Place:
        """The first attempt of the next round."""
        return replace(self, round=self.round + 1, attempt=1)
