"""Every byte of a whole run, on the wire and in the coordinator's folder, holds no site's plain update and no secret."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.engines.local import LocalEngine, local_engine
from fivefold.errors import DataError, FivefoldError
from fivefold.privacy.fixed_point import ring_for
from fivefold.privacy.secagg.ring import to_bytes
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Envelope
from fivefold.records.journal import read
from fivefold.site import gate
from tests.journeys.hostile import SITES, Consortium, Hostile
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them
from tests.journeys.search import found_in, leaves, windows

SECRET = "Zebedee-Quillfeather-1871"


class Tapped(LocalEngine):
    """Keeps all bytes that pass."""

    def __init__(self, engine: LocalEngine) -> None:
        super().__init__(engine.nodes)
        self.wire: list[bytes] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            data = requests[name]
            for site, reply in super().exchange({name: data}):
                self.wire += [data, reply]
                yield site, reply


def folder_bytes(folder: Path) -> Iterator[bytes]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield path.read_bytes()
    for path in folder.rglob("*.journal"):
        for record in read(path):
            yield from leaves(record)


def flat(answer: Mapping[str, Any], fields: Iterable[Any], dtype: type) -> bytes:
    return np.concatenate([np.asarray(answer[f.name], dtype=dtype).ravel() for f in fields]).tobytes()


def test_no_plain_update_leaves_a_site(them: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    plain: dict[str, set[bytes]] = {"float64": set(), "float32": set(), "ring": set()}
    taken: list[tuple[bytes, bytes]] = []

    def capturing(it: gate.Departure) -> gate.Departure:
        out = gate.round_to_ring(it)
        assert out.vector is not None
        wide, ring = flat(it.answer, it.fields, np.float64), to_bytes(out.vector, ring_for(it.fields))
        taken.append((wide, ring))
        plain["float64"].update(windows(wide))
        plain["float32"].update(windows(flat(it.answer, it.fields, np.float32), 4))
        plain["ring"].update(windows(ring))
        return out

    parts = tuple(capturing if p is gate.round_to_ring else p for p in gate.GATE)
    monkeypatch.setattr("fivefold.site.node.GATE", parts)
    engine = Tapped(them.engine)
    run = them.run(engine)
    assert run.rounds > 5
    assert len(taken) == len(SITES) * run.rounds
    assert all(len(needles) > 100 for needles in plain.values()), {k: len(v) for k, v in plain.items()}
    needles = set().union(*plain.values())

    # the control: one site's update of one round, planted at an odd place, is found in each of its forms
    wide, ring = next(t for t in reversed(taken) if windows(t[0]) and windows(t[1]))
    for planted in (wide, ring):
        assert found_in(b"abc" + planted + engine.wire[-1], needles) >= windows(planted)
    pretend = {"event": "leak", "inner": [m.reply(encode({"vector": wide}))]}
    assert any(found_in(leaf, needles) for leaf in leaves(pretend))

    opened: list[bytes] = []
    for data in engine.wire:
        opened += [data, *leaves(decode(data))]
    assert sum(map(len, engine.wire)) > 1_000_000
    for data in opened:
        assert not found_in(data, needles)
    for data in folder_bytes(run.folder):
        assert not found_in(data, needles)


# ---- refusals are mute ----------------------------------------------------------------------------------------------
def mute(them: Consortium, hostile: Hostile) -> None:
    """No trace of the secret in any reply or in the coordinator's folder."""
    assert hostile.heard
    assert any(e.kind == "refusal" for _, _, e in hostile.heard)
    traces = [SECRET.encode(), SECRET.split("-")[1].encode(), SECRET.lower().encode(), SECRET.encode().hex().encode()]
    for site, trip, reply in hostile.heard:
        assert not any(trace in reply.encode() for trace in traces), (site, trip)
    for folder in them.out.glob("run*"):
        for data in folder_bytes(folder):
            assert not any(trace in data for trace in traces)


def unprepared(them: Consortium) -> None:
    """Forget fir's snapshot, so that its rows are read again when it is asked."""
    for path in (them.out / "sites" / "fir" / "state" / "snapshots").rglob("*"):
        if path.is_file():
            path.unlink()


def rows_that_tell(site: Path) -> None:
    path = site / "aspirates.csv"
    head, *rows = path.read_text("utf-8").splitlines()
    cells = len(head.split(","))
    path.write_text("\n".join([head, *rows[:-5], *[",".join([SECRET] * cells)] * 3, ",".join([SECRET] * (cells + 2))]), "utf-8")


def no_such_file(site: Path) -> None:
    mapping = site / "mapping.yaml"
    mapping.write_text(mapping.read_text("utf-8").replace("aspirates.csv", f"{SECRET}/{SECRET}.csv"), "utf-8")


def no_such_column(site: Path) -> None:
    mapping = site / "mapping.yaml"
    mapping.write_text(mapping.read_text("utf-8").replace("column: ", f"column: {SECRET}"), "utf-8")


def no_such_key(site: Path) -> None:
    mapping = site / "mapping.yaml"
    mapping.write_text(mapping.read_text("utf-8") + f"\n{SECRET}: [{SECRET}\n", "utf-8")


def no_such_unit(site: Path) -> None:
    mapping = site / "mapping.yaml"
    text = mapping.read_text("utf-8")
    mapping.write_text(text.replace("source:", f"missing: [{SECRET}]\nsource:") + f"\nperson: {SECRET}\n", "utf-8")


def a_database(site: Path) -> None:
    mapping = site / "mapping.yaml"
    rest = mapping.read_text("utf-8").split("\n", 2)[2]
    source = f"source: {{kind: sql, url_env: SECRET_URL, query: \"select * from '{SECRET}'\"}}\n"
    mapping.write_text(source + rest, "utf-8")


def a_policy(site: Path) -> None:
    policy = site / "site.yaml"
    policy.write_text(policy.read_text("utf-8") + f"\n{SECRET}: {SECRET}\n", "utf-8")


@pytest.mark.parametrize(
    "fault",
    [rows_that_tell, no_such_file, no_such_column, no_such_key, no_such_unit, a_database, a_policy],
)
def test_a_fault_at_a_site_tells_nothing(them: Consortium, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_URL", f"sqlite:////nowhere/{SECRET}/{SECRET}.db")
    unprepared(them)
    fault(them.out / "sites" / "fir")
    hostile = Hostile(them.engine, lambda name, asked: asked if asked.kind == "open" else None)
    with contextlib.suppress(FivefoldError):
        them.run(hostile)
    assert "fir" in hostile.refusals("open")
    mute(them, hostile)


def test_a_librarys_words_stay_at_the_site(them: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of any kind, raised where the rows are: neither its words nor its cause leave."""

    def fails(it: gate.Departure) -> gate.Departure:
        if it.asked.round % 2:
            raise ValueError(f"could not convert string to float: '{SECRET}'")
        raise DataError(f"row 7 of {SECRET}: {SECRET}", help=SECRET)

    monkeypatch.setattr("fivefold.site.node.GATE", (fails,))
    hostile = Hostile(them.engine)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(FivefoldError) as stopped:
        them.run(hostile)
    assert SECRET not in str(stopped.value) + stopped.value.hint + said.getvalue()
    assert set(hostile.refusals("ask")) == set(SITES)
    mute(them, hostile)


@pytest.mark.parametrize("trip", ["open", "enrol", "share", "ask", "survivors", "unmask"])
def test_a_secret_in_a_request_is_not_echoed(them: Consortium, trip: str) -> None:
    """Each part of a message is the secret: what a site says of it names a rule and quotes nothing."""

    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != trip:
            return asked
        return replace(asked, body=encode({key: {SECRET: SECRET} for key in decode(asked.body)} | {SECRET: SECRET}))

    hostile = Hostile(them.engine, alter)
    with pytest.raises(FivefoldError):
        them.run(hostile)
    assert set(hostile.refusals(trip)) == set(SITES)
    mute(them, hostile)


def test_the_control_of_this_module(them: Consortium) -> None:
    assert found_in(b"x" * 3 + bytes(range(16)) + b"y" * 9, {bytes(range(16))}) == {bytes(range(16))}
    assert not found_in(b"x" * 40, {bytes(range(16))})
    assert local_engine(them.out / "sites", SITES).nodes.keys() == set(SITES)
