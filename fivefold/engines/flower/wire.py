"""What travels between coordinator and site inside a Flower message, and what both sides know of Flower: letters.

A request names the sites that it is for, and brings each of them its bytes; a site that finds its name there answers. So the
first exchange of a run, when the coordinator does not know yet behind which node a site is, is already the enrolment. Every
reply is signed by the site's Ed25519 key over the request's nonce: a site is known by its signature, never by its node id.

The protocol's version stands in both directions, and is compared before anything of a request is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fivefold.auth import keys
from fivefold.errors import MessageMalformed, ProtocolViolation, SignatureWrong
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import VERSION

KIND = "query.fivefold"
"""The type of a Flower message that is for a Fivefold site; every other is foreign."""

NONCE_BYTES = 16
MOST_ASKED = 1000
PURPOSE = "fivefold letter 1"
UNKNOWN, OTHER_STUDY = "unknown_site", "other_study"
"""Rules for a name that the study does not have: who answers under it pretends to have been asked; who does not is of another
study at the same SuperLink."""


@dataclass(frozen=True)
class Letter:
    """A message as it lies at the SuperLink for a node. `payload` is read only where `kind` is `KIND`."""

    run: int
    id: str
    kind: str
    sender: int
    payload: bytes
    raw: Any = None


@dataclass(frozen=True)
class Seen:
    """A node that the SuperLink holds to be there. `alive_until` changes with every sign of life."""

    node: int
    alive_until: float


@dataclass(frozen=True)
class Answer:
    """A reply that came back for the message `to`; without a payload the node said that it could not answer."""

    to: str
    node: int
    payload: bytes | None


class Fleet(Protocol):
    """A site's connection to a SuperLink. Errors of the connection are `ConnectionError`."""

    def connect(self, last: int = 0) -> int: ...

    def receive(self) -> Letter | None: ...

    def reply(self, letter: Letter, payload: bytes) -> None: ...

    def decline(self, letter: Letter, reason: str) -> None: ...

    def alive(self, busy: bool) -> None: ...

    def close(self) -> None: ...


class Link(Protocol):
    """The coordinator's connection to a SuperLink: one Flower run. Errors of the connection are `ConnectionError`."""

    def nodes(self) -> list[Seen]: ...

    def push(self, payloads: Mapping[int, bytes], seconds: float) -> dict[str, int]: ...

    def pull(self, ids: list[str]) -> list[Answer]: ...

    def close(self) -> None: ...


def request(nonce: bytes, requests: Mapping[str, bytes], asked: int) -> bytes:
    """The bytes of a request to the sites named; equal requests travel once. `asked`: how many sites are asked in this trip."""
    bodies = list(dict.fromkeys(requests.values()))
    places = {name: bodies.index(data) for name, data in requests.items()}
    return encode({"protocol": VERSION, "nonce": nonce, "asked": asked, "bodies": bodies, "for": places})


@dataclass(frozen=True)
class Request:
    """A request as a site reads it: `data` is None where the site is not among those that it is for."""

    nonce: bytes
    data: bytes | None
    asked: int


def read_request(data: bytes, me: str) -> Request:
    """Raises `MessageMalformed`; `ProtocolViolation` where the coordinator speaks another version."""
    it = _record(data)
    _same_version(it, "this coordinator")
    nonce, bodies, places = it.get("nonce"), it.get("bodies"), it.get("for")
    if (
        not isinstance(nonce, bytes)
        or len(nonce) != NONCE_BYTES
        or not isinstance(places, dict)
        or not isinstance(bodies, tuple)
    ):
        raise MessageMalformed("a request lacks a part", rule="request")
    asked = it.get("asked")
    asked = min(max(asked, 1), MOST_ASKED) if type(asked) is int else 1
    if me not in places:
        return Request(nonce, None, asked)
    place = places[me]
    if type(place) is not int or not 0 <= place < len(bodies) or not isinstance(bodies[place], bytes):
        raise MessageMalformed("a request names bytes that it does not bring", rule="request")
    return Request(nonce, bodies[place], asked)


def reply(site: str, private: bytes, nonce: bytes, answer: bytes) -> bytes:
    """A reply's bytes, signed. An empty `answer`: this site was not asked, and says only who it is."""
    signature = keys.sign(private, _claim(site, nonce, answer), PURPOSE)
    return encode({"protocol": VERSION, "site": site, "answer": answer, "signature": signature})


def other_version(site: str) -> bytes:
    """What a site says to a coordinator whose version it does not speak."""
    return encode({"protocol": VERSION, "site": site})


def read_reply(data: bytes, nonce: bytes, public: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Site and answer. Raises `SignatureWrong` for a name that the study does not have or a signature that is not that site's,
    `ProtocolViolation` for another version, `MessageMalformed`."""
    it = _record(data)
    site = it.get("site")
    _same_version(it, f"site {site!r:.60}")
    answer, signature = it.get("answer"), it.get("signature")
    if not isinstance(site, str) or not isinstance(answer, bytes) or not isinstance(signature, bytes):
        raise MessageMalformed("a reply lacks a part", rule="reply")
    if site not in public:
        raise SignatureWrong("a reply comes from a site that is not in the study", rule=UNKNOWN if answer else OTHER_STUDY)
    keys.verify(public[site], _claim(site, nonce, answer), signature, PURPOSE)
    return site, answer


def _same_version(it: Mapping[str, Any], who: str) -> None:
    if it.get("protocol") != VERSION:
        raise ProtocolViolation(
            f"{who} speaks protocol version {it.get('protocol')!r:.20}, not {VERSION}",
            rule="protocol_version",
            help="Install the same Fivefold at the coordinator and at every site.",
        )


def _claim(site: str, nonce: bytes, answer: bytes) -> bytes:
    return nonce + hashlib.sha256(answer).digest() + site.encode()


def _record(data: bytes) -> dict[str, Any]:
    it = decode(data)
    if not isinstance(it, dict):
        raise MessageMalformed("a letter is a mapping", rule="letter")
    return it
