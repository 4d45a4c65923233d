"""A consortium of real nodes and an engine that alters what the coordinator sends."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples import prepare
from fivefold.coordinator.session import Run
from fivefold.coordinator.session import run as drive
from fivefold.engines.local import LocalEngine, local_engine
from fivefold.errors import FivefoldError
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Message
from fivefold.records.audit import verify as verify_audit
from fivefold.study.digest import SignedStudy, load_signed

SITES = ("alder", "birch", "cedar", "elm", "fir")
Alter = Callable[[str, Envelope], Envelope | bytes | None]
"""Site and honest request → what is sent instead; None keeps it back."""


def with_message(asked: Envelope, message: Message) -> Envelope:
    """The same request with another message in it."""
    return replace(asked, body=message.encode())


def changed(asked: Envelope, kind: type[Message], **parts: Any) -> Envelope:
    """The same request with some parts of its message changed."""
    return with_message(asked, replace(kind.decode(asked.body), **parts))


def task_of(asked: Envelope) -> m.Task:
    return m.Task.decode(m.Ask.decode(asked.body).task)


def first(reply: bytes) -> Envelope:
    """The envelope of a reply that answers its trip; the other one is for the next round."""
    return Envelope.decode(m.envelopes_of(reply)[0])


class Hostile(LocalEngine):
    """Carries what a malicious coordinator sends. `heard` holds each reply (site, trip, envelope) in order."""

    def __init__(self, engine: LocalEngine, alter: Alter = lambda name, asked: asked) -> None:
        super().__init__(engine.nodes)
        self.alter = alter
        self.heard: list[tuple[str, str, Envelope]] = []
        self.bytes: list[bytes] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            asked = Envelope.decode(requests[name])
            sent = self.alter(name, asked)
            if sent is not None:
                reply = self.send(name, sent if isinstance(sent, bytes) else sent.encode())
                self.heard.append((name, asked.kind, first(reply)))
                yield name, reply

    def send(self, name: str, data: bytes) -> bytes:
        reply = self.nodes[name].answer(data)
        self.bytes += [data, reply]
        return reply

    def refusals(self, trip: str) -> dict[str, m.Refusal]:
        """The first refusal of each site."""
        said = [(name, m.Refusal.decode(e.body)) for name, asked, e in self.heard if asked == trip and e.kind == "refusal"]
        return dict(reversed(said))


class Consortium:
    """A copy of the prepared sites, and a run of the coordinator's own driver over a hostile engine."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.study = load_signed(out / "study.signed.json")
        self.engine = local_engine(out / "sites", SITES)

    def attack(self, alter: Alter, study: SignedStudy | None = None) -> Hostile:
        """Play the attack to its end. The run must not reach a result."""
        hostile = Hostile(self.engine, alter)
        with pytest.raises(FivefoldError):
            self.run(hostile, study)
        return hostile

    def run(self, engine: LocalEngine, study: SignedStudy | None = None) -> Run:
        folder = self.out / f"run{len(list(self.out.glob('run*')))}"
        return drive(study or self.study, engine, folder, tell=lambda _: None, engine_name="local", resume=False)

    def refused(self, site: str) -> list[dict[str, Any]]:
        """The `refused` entries of a site's log; the log itself must be whole."""
        log = self.out / "sites" / site / "state" / "audit.jsonl"
        verify_audit(log)
        lines = (json.loads(line) for line in log.read_text("utf-8").splitlines())
        return [entry["facts"] for entry in lines if entry["event"] == "refused"]

    def holds(self, hostile: Hostile, trip: str, code: str, rule: str, sites: tuple[str, ...] = SITES) -> None:
        """Each site of the attack refused this trip with that code and rule, on the wire and in its log."""
        said = hostile.refusals(trip)
        assert {s: (said[s].code, said[s].rule) for s in sites if s in said} == dict.fromkeys(sites, (code, rule))
        for site in sites:
            assert (trip, code, rule) in [(f["trip"], f["code"], f["rule"]) for f in self.refused(site)], site


def opens_nothing(hostile: Hostile, round: int) -> None:
    """No site gave a share of that round."""
    assert not [e for _, trip, e in hostile.heard if trip == "unmask" and e.place.round == round and e.kind != "refusal"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacks") / "breast"
    with contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare("breast", out)
    return out


@pytest.fixture
def them(prepared: Path, tmp_path: Path) -> Iterator[Consortium]:
    shutil.copytree(prepared, tmp_path / "c")
    made = Consortium(tmp_path / "c")
    yield made
    made.engine.close()
