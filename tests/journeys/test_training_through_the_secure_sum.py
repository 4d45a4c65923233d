"""Models trained through the real secure sum are those of plain addition in its arithmetic, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import prepare
from fivefold.coordinator import session
from fivefold.plugins import method
from fivefold.protocol.results import Result
from fivefold.replay.cursor import setting_of
from fivefold.site.folder import opened
from fivefold.site.preparation import open_prepared
from fivefold.study.digest import load_signed
from tests.algorithms import plain
from tests.journeys.consortium import engine


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, session.Run]:
    out = tmp_path_factory.mktemp("training") / "breast"
    prepare.prepare("breast", out, "training.yaml")
    signed = load_signed(out / "study.signed.json")
    return out, session.run(signed, engine(out), out / "run", tell=lambda _: None, engine_name="local", resume=False)


@pytest.mark.parametrize("name", ["averaging", "adam"])
def test_the_secure_sum_trains_the_same_model(trained: tuple[Path, session.Run], name: str) -> None:
    out, done = trained
    it = load_signed(out / "study.signed.json")
    tables = [open_prepared(opened(out / "sites" / s.name), it.study, it.digest).table for s in it.study.sites]
    (analysis,) = (a for a in it.study.analyses if a.name == name)
    expected = plain.run(method(analysis.method), analysis, setting_of(it.study), tables, ring=True)
    found = done.results[name]
    assert isinstance(found, Result), found
    assert found.facts["weights_sha256"] == expected.facts["weights_sha256"]
    assert found.tables["rounds"] == expected.tables["rounds"]
    assert found.facts["accuracy"] > 0.9
    assert found.facts["auc_low"] <= found.facts["auc"] <= found.facts["auc_high"]


def test_curves_and_calibration_are_drawn(trained: tuple[Path, session.Run]) -> None:
    _, done = trained
    drawn = {p.name for p in done.folder.rglob("*.svg")}
    assert len(drawn) >= 8, drawn
