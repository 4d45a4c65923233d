"""Envelopes signed and opened: a site's word, bound to its place, kind and sender."""

from __future__ import annotations

from typing import TypeVar

from fivefold.auth.keys import sign, verify
from fivefold.errors import ProtocolViolation, SignatureWrong
from fivefold.protocol.messages import Envelope, Message, Place, Roster

Kind = TypeVar("Kind", bound=Message)


def signed(private: bytes, place: Place, sender: str, message: Message) -> Envelope:
    """The message in an envelope that the sender's key (Ed25519, 32 bytes) signs."""
    bare = Envelope(place, message.kind, sender, message.encode())
    return Envelope(place, bare.kind, sender, bare.body, sign(private, bare.claim, purpose(bare.kind)))


def opened(data: bytes, kind: type[Kind], roster: Roster, place: Place, sender: str | None = None) -> tuple[str, Kind]:
    """Who sent an encoded envelope, and its message, once everything about it is right.

    Raises `MessageMalformed`, `SignatureWrong`, and `ProtocolViolation` where it belongs to another place, is of another kind,
    is another site's than `sender`, or its sender is not in the roster.
    """
    envelope = Envelope.decode(data)
    if envelope.kind != kind.kind or envelope.place != place:
        raise ProtocolViolation("a message belongs to another run, round, attempt or trip", rule="wrong_place")
    if envelope.sender not in roster:
        raise ProtocolViolation("a message comes from a site that is not in the signed study", rule="unknown_peer")
    if sender is not None and envelope.sender != sender:
        raise ProtocolViolation("a message comes from another site than was asked", rule="wrong_sender")
    check(envelope, roster)
    return envelope.sender, kind.decode(envelope.body)


def check(envelope: Envelope, roster: Roster) -> None:
    """Nothing if the sender's signature is right; `SignatureWrong` if not."""
    try:
        verify(roster.key(envelope.sender), envelope.claim, envelope.signature, purpose(envelope.kind))
    except SignatureWrong as error:
        raise SignatureWrong(
            f"a message ({envelope.kind}) was not signed by the key that the study gives site {envelope.sender}",
            rule="signature",
        ) from error


def purpose(kind: str) -> str:
    """What a signature of this kind of message is valid for, and nothing else."""
    return f"secure-sum {kind}"
