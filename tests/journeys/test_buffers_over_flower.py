"""Asynchronous training over a real SuperLink: a site that computes for long holds nobody up, and comes in when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from examples.consortium import prepared
from fivefold.coordinator import session
from fivefold.protocol.results import Result
from fivefold.records.journal import read
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from tests.journeys.consortium import SITES
from tests.journeys.deployment import deployed

OPTIONS: dict[str, Any] = {
    "model": {"kind": "logistic"}, "rounds": 3, "buffer": 4, "learning_rate": 0.05, "local_epochs": 60, "batch_size": 1,
    "site_totals": "needed", "bins": 0,
}  # fmt: skip


def test_a_site_with_many_rows_is_in_a_later_buffer(tmp_path: Path) -> None:
    """elm has thirty times the rows of the others and takes as many steps for each: seconds, and they no time."""
    r = np.random.default_rng(4)
    rows = {site: 360 if site == "elm" else 12 for site in SITES}
    x = r.normal(size=(sum(rows.values()), 2))
    ill = (x[:, 0] - x[:, 1] + r.normal(size=len(x)) > 0).astype(float)
    frame = pd.DataFrame({"u": x[:, 0], "v": x[:, 1], "ill": ill, "site": np.repeat(list(rows), list(rows.values()))})
    variables = (*(Variable(n, n, "number", minimum=-9, maximum=9) for n in "uv"), Variable("ill", "ill", "boolean"))
    out = tmp_path / "it"
    signed = prepared(out, "ill", frame, variables, (Analysis("slow", "fedbuff", "ill ~ u + v", options=OPTIONS),), seed=5)
    with deployed(out, out / "coordinator") as flower, flower.engine(120.0) as engine:
        done = session.run(signed, engine, out / "run", tell=lambda _: None, engine_name="flower", resume=False)
    found = done.results["slow"]
    assert isinstance(found, Result), found
    told = [r for r in read(out / "run" / "journal" / "rounds.journal") if r["event"] == "aggregate"]
    buffers = [r["buffer"] for r in told if "buffer" in r]
    assert len(buffers) == 3
    assert all(len(b) == 4 for b in buffers)
    assert set(buffers[0]) == set(SITES) - {"elm"}
    late = [(i, b["elm"]["version"]) for i, b in enumerate(buffers) if "elm" in b]
    assert late
    assert all(version < at for at, version in late), late
    assert found.dropped == ()
