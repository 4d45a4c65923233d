"""The messages of a run: what the coordinator asks, what a site replies, and the envelope that says where each belongs.

An envelope names protocol version, study, run, round, attempt, kind and sender; a site's signature (Ed25519, made and verified
in `auth/signatures.py`) covers all of these and the body. A request of the coordinator carries no signature, because no site
trusts it: what it passes on from other sites is signed by them.

    trip        request      reply, one or two envelopes                     when
    open        Open         Opened                                          a run begins, a site comes back
    enrol       Enrol        Advert                                          the first round, a new attempt, a site comes back
    share       Share        Shares                                          after enrol
    compute     Compute      Computed                                        buffered rounds alone, before their keys
    gather      Gather       Gathered                                        rounds of single replies alone, without keys
    ask         Ask          Masked, and Advert for the next round           each round
    survivors   Survivors    Agreed                                          each round, `adversary: active` alone
    unmask      Unmask       Unmasked, and Shares for the next round         each round
    close       Close        Closed                                          the run ends
    notice      Notice       Noticed                                         another site withdrew

Heads of the audit logs travel along (`records/witness.py`): a site's with its adverts, the coordinator's beside the key list.

A site may reply `Refusal` to any. Decoding is for hostile input: a message that lacks a part, has one too many or one of
another type raises `MessageMalformed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from fivefold.errors import MessageMalformed
from fivefold.protocol.encoding import decode, digest, encode
from fivefold.protocol.parts import Message as Message
from fivefold.protocol.parts import parts_of
from fivefold.protocol.places import Blobs as Blobs
from fivefold.protocol.places import Names as Names
from fivefold.protocol.places import Place as Place
from fivefold.protocol.places import Roster as Roster

VERSION = 2
COORDINATOR = ""
"""The sender of a request."""

Parcels = Mapping[str, bytes]
"""Bytes by the name of a site."""


# ---- what the coordinator asks --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Open(Message):
    """Open this run of a signed study (its file's bytes); `variations` are the signed files of those that it answers in place
    of the study's own analyses."""

    kind: ClassVar[str] = "open"
    study: bytes
    variations: Blobs = ()


@dataclass(frozen=True)
class Enrol(Message):
    """Advertise keys for this round and attempt. `roster` is the digest of all sites of the signed study."""

    kind: ClassVar[str] = "enrol"
    roster: bytes


@dataclass(frozen=True)
class Share(Message):
    """The key list: every site's signed `Advert`, in the roster's order. Seal shares of your secrets for these sites. `head`:
    the head of the coordinator's log, which the list's digest binds."""

    kind: ClassVar[str] = "share"
    adverts: Blobs
    head: bytes = b""


@dataclass(frozen=True)
class Ask(Message):
    """The round's question with the aggregates that lead to it (`task`: an encoded `Task`, which the node reads), and the
    shares that the peers sealed for this site."""

    kind: ClassVar[str] = "ask"
    task: bytes
    sealed: Parcels


@dataclass(frozen=True)
class Compute(Message):
    """Compute an answer to this round's question (`task`, as in `Ask`) and keep it until a buffer takes it."""

    kind: ClassVar[str] = "compute"
    task: bytes


@dataclass(frozen=True)
class Gather(Message):
    """Answer this round's question (`task`, as in `Ask`) by yourself, unmasked."""

    kind: ClassVar[str] = "gather"
    task: bytes


@dataclass(frozen=True)
class Survivors(Message):
    """Whose masked updates arrived, in the roster's order. Sign that you will serve this list and no other."""

    kind: ClassVar[str] = "survivors"
    survivors: Names


@dataclass(frozen=True)
class Unmask(Message):
    """The survivor list with the signatures (64 bytes) of those who agreed to it (none if the coordinator is taken to be
    curious only), and the key list of the next round with its `head` (both empty if there is none)."""

    kind: ClassVar[str] = "unmask"
    survivors: Names
    signatures: Parcels
    adverts: Blobs
    head: bytes = b""


@dataclass(frozen=True)
class Close(Message):
    """The run is over: forget its secrets. `head`: of the coordinator's log."""

    kind: ClassVar[str] = "close"
    head: bytes = b""


@dataclass(frozen=True)
class Notice(Message):
    """Another site withdrew: its signed notice. No survivor list with that site in it is served any more."""

    kind: ClassVar[str] = "notice"
    notice: bytes


# ---- what a site replies --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Opened(Message):
    """The run is open at this site, which has followed it up to the aggregate of the round `known` (0: of none). `checkers`:
    the output checkers whom the site adds, encoded (name, organisation, key); `approval`: its custodian's signed statement."""

    kind: ClassVar[str] = "opened"
    known: int
    checkers: bytes
    approval: bytes


@dataclass(frozen=True)
class Advert(Message):
    """Two independent X25519 public keys, one for sealing shares and one for masks; a commitment to the self-mask's seed;
    whether the custodian permits that this site's own totals show (`site_totals`), which the others apply if it drops out; and
    the head of the site's audit log, for all others to keep."""

    kind: ClassVar[str] = "advert"
    roster: bytes
    seal_key: bytes
    mask_key: bytes
    commitment: bytes
    site_totals: bool
    head: bytes = b""


@dataclass(frozen=True)
class Shares(Message):
    """For each other site of the key list (`keys`, its digest) its sealed share of the self-mask's seed and of the mask key."""

    kind: ClassVar[str] = "shares"
    keys: bytes
    sealed: Parcels


@dataclass(frozen=True)
class Masked(Message):
    """The masked update: ring elements, little-endian. It says which masks are in it: with `sharers`, under the key list
    `keys`, for the question of this digest, `length` elements of Z_2^`bits`."""

    kind: ClassVar[str] = "masked"
    keys: bytes
    sharers: Names
    question: bytes
    bits: int
    length: int
    vector: bytes


@dataclass(frozen=True)
class Agreed(Message):
    """This site serves these survivors and no others, in this round and attempt, for this question."""

    kind: ClassVar[str] = "agreed"
    keys: bytes
    sharers: Names
    question: bytes
    bits: int
    length: int
    survivors: Names


@dataclass(frozen=True)
class Unmasked(Message):
    """This site's shares: of the self-mask's seed of each survivor, of the mask key of each sharer that dropped out."""

    kind: ClassVar[str] = "unmasked"
    keys: bytes
    question: bytes
    survivors: Names
    seed_shares: Parcels
    key_shares: Parcels


@dataclass(frozen=True)
class Closed(Message):
    """The run's secrets are forgotten. `head`: of the site's log."""

    kind: ClassVar[str] = "closed"
    head: bytes = b""


@dataclass(frozen=True)
class Computed(Message):
    """An answer is kept here: to the question of this version of the weights (so many buffers were filled before it)."""

    kind: ClassVar[str] = "computed"
    version: int


@dataclass(frozen=True)
class Gathered(Message):
    """This site's own answer to the question of this digest: ring elements, little-endian, not masked."""

    kind: ClassVar[str] = "gathered"
    question: bytes
    vector: bytes


@dataclass(frozen=True)
class Noticed(Message):
    """The notice is kept."""

    kind: ClassVar[str] = "noticed"


@dataclass(frozen=True)
class Refusal(Message):
    """What may leave a site about a refusal: `FivefoldError.public()`. `notice`: the signed notice for the other sites, of one
    that withdrew."""

    kind: ClassVar[str] = "refusal"
    code: str
    rule: str
    variable: str
    notice: bytes = b""


REQUESTS: Mapping[str, type[Message]] = {
    m.kind: m for m in (Open, Enrol, Share, Compute, Gather, Ask, Survivors, Unmask, Close, Notice)
}
REPLIES: Mapping[str, type[Message]] = {
    m.kind: m for m in (Opened, Advert, Shares, Computed, Gathered, Masked, Agreed, Unmasked, Closed, Noticed, Refusal)
}


# ---- envelopes ------------------------------------------------------------------------------------------------------
ENVELOPE = {
    **dict.fromkeys(("version", "round", "attempt"), "int"),
    **dict.fromkeys(("study", "run", "kind", "sender"), "str"),
    **dict.fromkeys(("body", "signature"), "bytes"),
}


@dataclass(frozen=True)
class Envelope:
    """One message in its place. `body` is the message's bytes; a site's signature is over `claim`."""

    place: Place
    kind: str
    sender: str
    body: bytes
    signature: bytes = b""

    @property
    def claim(self) -> bytes:
        """What the signature covers."""
        where = (VERSION, self.place.study, self.place.run, self.place.round, self.place.attempt)
        return encode({"where": where, "kind": self.kind, "sender": self.sender, "body": hashlib.sha256(self.body).digest()})

    @cached_property
    def identity(self) -> bytes:
        """SHA-256 of the whole envelope: two requests are the same if this is."""
        return hashlib.sha256(self.encode()).digest()

    def encode(self) -> bytes:
        place = self.place
        head = {"version": VERSION, "study": place.study, "run": place.run, "round": place.round, "attempt": place.attempt}
        rest = {"kind": self.kind, "sender": self.sender, "body": self.body, "signature": self.signature}
        return encode(head | rest)

    @classmethod
    def decode(cls, data: bytes) -> Envelope:
        """Raises `MessageMalformed`, for another protocol version too."""
        parts = parts_of(decode(data), ENVELOPE, "envelope")
        if parts["version"] != VERSION:
            raise MessageMalformed(
                f"a message speaks version {parts['version']} of the protocol, this program version {VERSION}",
                help="Bring every site and the coordinator to the same version of Fivefold.",
            )
        if parts["round"] < 1 or parts["attempt"] < 1:
            raise MessageMalformed("rounds and attempts count from 1")
        place = Place(parts["study"], parts["run"], parts["round"], parts["attempt"])
        return cls(place, parts["kind"], parts["sender"], parts["body"], parts["signature"])

    def message(self) -> Message:
        """The message of a request or reply. Raises `MessageMalformed`."""
        known = REQUESTS if self.sender == COORDINATOR else REPLIES
        if self.kind not in known:
            raise MessageMalformed("a message is of a kind that is not part of the protocol")
        return known[self.kind].decode(self.body)


def request(place: Place, message: Message) -> bytes:
    """A request of the coordinator, as it travels."""
    return Envelope(place, message.kind, COORDINATOR, message.encode()).encode()


def reply(*envelopes: bytes) -> bytes:
    """A site's reply: one or two signed envelopes."""
    return encode(tuple(envelopes))


def envelopes_of(data: bytes) -> tuple[bytes, ...]:
    """The encoded envelopes of a reply. Raises `MessageMalformed`."""
    parts = decode(data)
    if not isinstance(parts, tuple) or not 1 <= len(parts) <= 2 or not all(isinstance(p, bytes) for p in parts):
        raise MessageMalformed("a reply is one or two envelopes")
    return parts


# ---- what leads to a question ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Task(Message):
    """A question (encoded; its SHA-256 is what masks and signatures bind), and the encoded `Told` of each round that the site
    has not followed yet."""

    kind: ClassVar[str] = "task"
    question: bytes
    history: Blobs

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.question).digest()


@dataclass(frozen=True)
class Told(Message):
    """What came of a round, as the coordinator tells it: the encoded totals (one mapping for each sum), the sites in them,
    those of the study that are not, how it ended the analysis if it did, and the question and transcript that prove it (both
    empty where the aggregate is taken on trust)."""

    kind: ClassVar[str] = "told"
    round: int
    totals: bytes
    sites: Names
    dropped: Names
    ended: str
    question: bytes
    transcript: bytes


@dataclass(frozen=True)
class Transcript(Message):
    """A round laid open to its sites: all signed adverts, masked updates and unmask shares (encoded envelopes). Whoever reads
    it adds up the total without trusting the coordinator: `site/transcript.py`. `head` stood beside the key list."""

    kind: ClassVar[str] = "transcript"
    adverts: Blobs
    masked: Blobs
    unmasked: Blobs
    head: bytes = b""


def key_list_digest(adverts: Sequence[bytes], head: bytes = b"") -> bytes:
    """The digest that mask seeds, seals and signatures bind: over all signed adverts, in the roster's order, and the head of
    the coordinator's log. Sites that were told different heads have no masks in common, and open nothing together."""
    return digest((tuple(adverts), head))
