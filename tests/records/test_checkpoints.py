"""Snapshots on disk: a training goes on from one as if it had never stopped, and a damaged one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.method import Method
from fivefold.errors import JournalProblem, SealBroken
from fivefold.models import safetensors
from fivefold.plugins import METHODS, method
from fivefold.protocol.questions import Snapshot
from fivefold.protocol.results import Result
from fivefold.records.checkpoints import Checkpoints
from fivefold.replay.cursor import Checkpoint
from tests.algorithms import plain, real_data
from tests.algorithms.training_data import analysis

KEY = bytes(range(32))
TRAININGS = [n for n in METHODS if method(n).trains]


def at(round: int, state: dict[str, Any], name: str = "net") -> Checkpoint:
    return Checkpoint(name, 2, round, 77, 3, Snapshot(state))


def fed(about: Method, generator: Any, aggregates: list[Any], place: Path | None = None) -> tuple[Result, int]:
    """The result, and how many aggregates were used before the last snapshot, which is kept in `place`."""
    sent, used, before = None, 0, 0
    while True:
        try:
            question = generator.send(sent)
        except StopIteration as done:
            return done.value, before
        if isinstance(question, Snapshot):
            if place is not None:
                Checkpoints(place).keep(Checkpoint(about.name, 0, used, None, 0, question))
            sent, before = None, used
            continue
        sent, used = aggregates[used], used + 1


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_goes_on_from_disk_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    _, setting, tables = real_data.breast()
    more = {"personalised": {"model": {"kind": "mlp", "hidden": [3]}}, "fedbuff": {"site_totals": "needed"}}.get(name, {})
    about, asked = method(name), analysis(name, rounds=5, snapshot_every=2, holdout=0.2, **more)
    log = plain.transcript(about, asked, setting, tables, {3: (setting.sites[1],)})
    spec = about.parse(asked, setting)
    whole, before = fed(about, about.rounds(spec), log.aggregates, tmp_path)
    kept = Checkpoints(tmp_path).load()[name]
    assert kept.round == before > 0
    again, _ = fed(about, about.rounds(spec, kept.state), log.aggregates[before:])
    assert again == whole == log.result


@pytest.mark.parametrize("key", [None, KEY])
def test_the_last_snapshot_of_each_analysis_stands_alone(tmp_path: Path, key: bytes | None) -> None:
    kept = Checkpoints(tmp_path, key)
    state = {
        "state": {"weights": np.arange(3.0), "clips": np.zeros(0)},
        "done": 4,
        "history": ({"scores": np.ones((2, 2), int)},),
    }
    for round in (5, 7):
        kept.keep(at(round, state | {"done": round}))
    kept.keep(at(9, state, "net-2"))
    found = Checkpoints(tmp_path, key).load()
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == ["net-000007.safetensors", "net-2-000009.safetensors"]
    assert (found["net"].begun, found["net"].round, found["net"].persons, found["net"].version) == (2, 7, 77, 3)
    assert found["net"].state.state["done"] == 7
    assert np.array_equal(found["net"].state.state["state"]["weights"], np.arange(3.0))
    assert found["net"].state.state["state"]["clips"].shape == (0,)
    assert found["net"].state.state["history"][0]["scores"].dtype == np.int64
    data = (tmp_path / "net-000007.safetensors").read_bytes()
    if key is None:
        assert set(safetensors.load(data)) == {"state.weights", "state.clips"}
    else:
        assert np.arange(3.0).tobytes() not in data
        with pytest.raises(SealBroken):
            Checkpoints(tmp_path, bytes(32)).load()


@pytest.mark.parametrize("name", ["net.snapshot", "net-000005.safetensors"])
def test_every_changed_byte_is_told(tmp_path: Path, name: str) -> None:
    Checkpoints(tmp_path).keep(at(5, {"state": {"weights": np.arange(2.0)}, "done": 4}))
    path, whole = tmp_path / name, (tmp_path / name).read_bytes()
    for i in range(len(whole)) if name.endswith("tensors") else (0, len(whole) - 1):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(JournalProblem, match=r"net\.snapshot is damaged"):
            Checkpoints(tmp_path).load()
    path.unlink()
    if name != "net.snapshot":
        with pytest.raises(JournalProblem):
            Checkpoints(tmp_path).load()


def test_a_crash_between_the_two_files_leaves_the_snapshot_before(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.keep(at(5, {"state": {"weights": np.arange(2.0)}, "done": 4}))
    (tmp_path / "net-000007.safetensors").write_bytes(safetensors.dump({"state.weights": np.ones(2)}))
    assert kept.load()["net"].round == 5
