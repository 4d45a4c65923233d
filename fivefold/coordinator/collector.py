"""The coordinator's half of the secure sum: keys → shares → masked updates → survivors → open.

The signed updates are kept while the round lasts, since every site adds them up itself: for statistics they are small.
The masked sum and its survivors are journalled before anyone is asked to open it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fivefold.auth.messages import verified
from fivefold.errors import FivefoldError, SiteRefused, TooManyDropouts
from fivefold.privacy.secagg.ring import Ring, add_into, from_bytes, zeros
from fivefold.protocol.envelope import Message, wrapped
from fivefold.protocol.questions import Array
from fivefold.replay.opening import opened


class Engine(Protocol):
    """Carries messages. A site that does not answer is simply absent from what comes back."""

    def exchange(self, requests: Mapping[str, bytes]) -> Mapping[str, bytes]: ...


@dataclass(frozen=True)
class Ground:
    """What does not change over a run: digest, run, the study's sites with their keys, threshold and survivors needed."""

    study: str
    run: str
    keys: Mapping[str, bytes]
    threshold: int
    needed: int
    active: bool

    @property
    def roster(self) -> tuple[str, ...]:
        return tuple(self.keys)


@dataclass(frozen=True)
class Opened:
    """A sum: its ring vector, whose it is, and the signed messages from which every site can add it up itself."""

    total: Array
    survivors: tuple[str, ...]
    transcript: Mapping[str, Any]


Heard = Callable[[str, str, str], None]
"""Told of each refusal: site, code, rule."""


FORMS: Mapping[str, Mapping[str, type]] = {
    "keys": {"seal": bytes, "mask": bytes},
    "share": {"parcels": dict},
    "ask": {"vector": bytes, "members": tuple, "view": bytes},
    "survivors": {"survivors": tuple},
    "unmask": {"self": dict, "pair": dict, "survivors": tuple},
}
"""What the coordinator reads of each reply: one that lacks it is a refusal of that site, not the end of the run."""


def exchange(
    engine: Engine, ground: Ground, kind: str, round: int, attempt: int, bodies: Mapping[str, Any], refused: Heard
) -> dict[str, tuple[Message, bytes]]:
    """One trip: a request to each site → the verified replies of those that answered. Refusals are told and left out."""
    requests = {
        name: wrapped(Message(kind, ground.study, ground.run, round, attempt, "coordinator", body).content())
        for name, body in bodies.items()
    }
    heard: dict[str, tuple[Message, bytes]] = {}
    for name, reply in engine.exchange(requests).items():
        try:
            message = verified(reply, ground.keys)
        except FivefoldError as error:
            refused(name, error.code, error.rule)
            continue
        place = (ground.study, ground.run, round, attempt, name)
        if message.kind == "refusal":
            refused(name, str(message.body.get("code", ""))[:60], str(message.body.get("rule", ""))[:60])
        elif (message.study, message.run, message.round, message.attempt, message.sender) != place or message.kind != kind:
            refused(name, "ProtocolViolation", "message_of_another_place")
        elif any(type(message.body.get(part)) is not form for part, form in FORMS.get(kind, {}).items()):
            refused(name, "MessageMalformed", "body")
        else:
            heard[name] = (message, reply)
    return heard


def secure_sum(
    engine: Engine,
    ground: Ground,
    round: int,
    attempt: int,
    ask: Mapping[str, Mapping[str, Any]],
    width: int,
    ring: Ring,
    refused: Heard,
    before_opening: Callable[[Array, Sequence[str]], None],
) -> Opened:
    """One attempt at one round. `ask`: site → the body of its question. Raises `TooManyDropouts`, `SiteRefused`."""

    def trip(kind: str, bodies: Mapping[str, Any]) -> dict[str, tuple[Message, bytes]]:
        heard = exchange(engine, ground, kind, round, attempt, bodies, refused)
        if len(heard) < ground.needed:
            raise TooManyDropouts(
                f"round {round}: {len(heard)} of {len(ground.roster)} sites answered, {ground.needed} are needed"
            )
        return heard

    keys = trip("keys", {name: {} for name in ask})
    advertised = {name: data for name, (_, data) in keys.items()}
    shared = trip("share", {name: {"keys": advertised} for name in keys})

    bodies = {}
    for name in shared:
        parcels = {s: m.body["parcels"][name] for s, (m, _) in shared.items() if s != name and name in m.body["parcels"]}
        bodies[name] = {**ask[name], "parcels": parcels}
    masked = trip("ask", bodies)
    views = {(m.body["members"], m.body["view"]) for m, _ in masked.values()}
    if len(views) != 1:
        raise SiteRefused("the sites masked towards different peers", rule="key_list")
    members = next(iter(views))[0]
    total = zeros(width, ring)
    for message, _ in masked.values():
        add_into(total, from_bytes(message.body["vector"], width, ring), ring)
    survivors = tuple(name for name in ground.roster if name in masked)
    before_opening(total, survivors)

    agreements: dict[str, bytes] = {}
    if ground.active:
        agreed = trip("survivors", {name: {"survivors": survivors} for name in survivors})
        agreements = {name: data for name, (_, data) in agreed.items()}
    helpers = survivors if not agreements else tuple(n for n in survivors if n in agreements)
    shares = trip("unmask", {name: {"survivors": survivors, "agreements": agreements} for name in helpers})
    opened(
        total,
        ring,
        ground.roster,
        ground.threshold,
        {n: m for n, (m, _) in keys.items()},
        members,
        survivors,
        {n: m for n, (m, _) in shares.items()},
    )
    transcript = {
        "attempt": attempt,
        "members": members,
        "survivors": survivors,
        "keys": advertised,
        "masked": {n: d for n, (_, d) in masked.items()},
        "shares": {n: d for n, (_, d) in shares.items()},
    }
    return Opened(total, survivors, transcript)
