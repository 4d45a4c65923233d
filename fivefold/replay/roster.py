"""Whom a study's messages may come from: its sites with their keys, the same for coordinator and every site."""

from __future__ import annotations

from fivefold.protocol.messages import Roster
from fivefold.study.definition import Study


def roster_of(study: Study) -> Roster:
    """All sites of a study, in its order, with their nodes' public keys (Ed25519, 32 bytes)."""
    return Roster(tuple(s.name for s in study.sites), tuple(bytes.fromhex(s.public_key) for s in study.sites))
