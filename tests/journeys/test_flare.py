"""The lung study under NVIDIA FLARE's simulator: five clients, each with a process of its own, and the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import prepare
from fivefold.cli.main import run
from fivefold.results.write import read_results
from tests.environments import environment


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared, and run twice: in this process and under FLARE."""
    out = tmp_path_factory.mktemp("flare") / "lung"
    assert prepare.main(["lung", str(out)]) == 0
    study = str(out / "study.yaml")
    assert run(["run", study, "--out", str(out / "local"), "--quiet"]) == 0
    words = ["--engine", "flare", "--flare-python", str(environment("flare") / "python")]
    assert run(["run", study, "--out", str(out / "flare"), "--quiet", *words]) == 0
    return out


def test_every_number_is_that_of_the_local_run(lung: Path) -> None:
    local, flare = read_results(lung / "local"), read_results(lung / "flare")
    assert list(local) == list(flare)
    for name, result in local.items():
        assert flare[name].sites == result.sites
        for title, table in result.tables.items():
            other = flare[name].tables[title]
            assert other.columns == table.columns
            for column in table.columns:
                _same(other.column(column), table.column(column))


def _same(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        if isinstance(b, float) and isinstance(a, float):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
        else:
            assert a == b


def test_the_run_folder_is_an_ordinary_one_and_says_what_carried_it(lung: Path) -> None:
    assert json.loads((lung / "flare" / "result.json").read_text())["run"]["engine"] == "flare"
    assert run(["audit", "verify", str(lung / "flare" / "audit.jsonl")]) == 0
    assert (lung / "flare" / "ro-crate-metadata.json").exists()
    for site in (lung / "sites").iterdir():
        assert run(["audit", "verify", str(next((site / "state").glob("audit.jsonl")))]) == 0
