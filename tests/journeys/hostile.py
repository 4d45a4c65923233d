"""A consortium of real nodes and an engine that alters what the coordinator sends."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from examples import prepare
from fivefold.coordinator.session import Run
from fivefold.coordinator.session import run as drive
from fivefold.engines.local import LocalEngine, local_engine
from fivefold.errors import FivefoldError
from fivefold.protocol.envelope import Message, content_of, wrapped
from fivefold.records.audit import verify as verify_audit
from fivefold.study.digest import SignedStudy, load_signed

SITES = ("alder", "birch", "cedar", "elm", "fir")
Alter = Callable[[str, Message], Message | bytes | None]
"""Site and honest request → what is sent instead; None keeps it back."""


class Hostile(LocalEngine):
    """Carries what a malicious coordinator sends. `heard` holds each reply with the trip that it answers."""

    def __init__(self, engine: LocalEngine, alter: Alter = lambda name, message: message) -> None:
        super().__init__(engine.nodes)
        self.alter = alter
        self.heard: list[tuple[str, str, Message]] = []

    def exchange(self, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        replies = {}
        for name, data in requests.items():
            asked = content_of(data)[0]
            sent = self.alter(name, asked)
            if sent is not None:
                reply = self.send(name, sent if isinstance(sent, bytes) else wrapped(sent.content()))
                self.heard.append((name, asked.kind, content_of(reply)[0]))
                replies[name] = reply
        return replies

    def send(self, name: str, data: bytes) -> bytes:
        return self.nodes[name].answer(data)

    def refusals(self, trip: str) -> dict[str, dict[str, str]]:
        return {name: dict(m.body) for name, asked, m in self.heard if asked == trip and m.kind == "refusal"}


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
        assert {s: (said[s]["code"], said[s]["rule"]) for s in sites if s in said} == dict.fromkeys(sites, (code, rule))
        for site in sites:
            assert (trip, code, rule) in [(f["trip"], f["code"], f["rule"]) for f in self.refused(site)], site


def opens_nothing(hostile: Hostile, round: int) -> None:
    """No site gave a share of that round."""
    assert not [m for _, trip, m in hostile.heard if trip == "unmask" and m.round == round and m.kind != "refusal"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacks") / "breast"
    with contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare("breast", out)
    return out


@pytest.fixture
def them(prepared: Path, tmp_path: Path) -> Consortium:
    shutil.copytree(prepared, tmp_path / "c")
    return Consortium(tmp_path / "c")
