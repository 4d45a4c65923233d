"""Messages signed and verified: a site is known by its signature, never by where a message came from."""

from __future__ import annotations

from collections.abc import Mapping

from fivefold.auth.keys import sign, verify
from fivefold.errors import SignatureWrong
from fivefold.protocol.envelope import PURPOSE, Message, content_of, wrapped


def signed(message: Message, private: bytes) -> bytes:
    """A message's bytes, signed by its sender's key."""
    content = message.content()
    return wrapped(content, sign(private, content, PURPOSE))


def verified(data: bytes, keys: Mapping[str, bytes]) -> Message:
    """The message in signed bytes. Raises `SignatureWrong` for an unknown sender or a signature that does not verify."""
    message, content, signature = content_of(data)
    if message.sender not in keys:
        raise SignatureWrong("a message comes from a site that is not in the study", rule="unknown_peer")
    verify(keys[message.sender], content, signature, PURPOSE)
    return message
