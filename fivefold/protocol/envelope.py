"""Messages of a run: what kind, of which study, run, round and attempt, from whom, and signed.

Every reply of a site is signed with its node's key; requests of the coordinator are not trusted, whoever signed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fivefold.errors import MessageMalformed
from fivefold.protocol.encoding import decode, encode

VERSION = 1
PURPOSE = "fivefold message 1"
FIELDS = {"version", "kind", "study", "run", "round", "attempt", "sender", "body"}


@dataclass(frozen=True)
class Message:
    """`kind` is a trip (`enrol`, `keys`, `share`, `ask`, `survivors`, `unmask`, `close`) or `refusal`."""

    kind: str
    study: str
    run: str
    round: int
    attempt: int
    sender: str
    body: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def content(self) -> bytes:
        """The bytes that are signed."""
        return encode({name: getattr(self, name) for name in FIELDS})


def content_of(data: bytes) -> tuple[Message, bytes, bytes]:
    """A message, its signed content and its signature (empty for a request). Raises `MessageMalformed`."""
    outer = decode(data)
    if not isinstance(outer, dict) or set(outer) != {"content", "signature"}:
        raise MessageMalformed("a message has a content and a signature")
    content, signature = outer["content"], outer["signature"]
    if not isinstance(content, bytes) or not isinstance(signature, bytes):
        raise MessageMalformed("a message's content and signature are bytes")
    inner = decode(content)
    kinds = {"kind": str, "study": str, "run": str, "round": int, "attempt": int, "sender": str, "body": dict, "version": int}
    if not isinstance(inner, dict) or set(inner) != FIELDS or any(type(inner[k]) is not t for k, t in kinds.items()):
        raise MessageMalformed("a message lacks a part or has one too many")
    if inner["version"] != VERSION:
        raise MessageMalformed(
            f"protocol version {inner['version']} is not {VERSION}", help="Install the same Fivefold at every site."
        )
    return Message(**inner), content, signature


def wrapped(content: bytes, signature: bytes = b"") -> bytes:
    """Bytes on the wire."""
    return encode({"content": content, "signature": signature})
