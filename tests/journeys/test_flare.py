"""The lung study under NVIDIA FLARE's simulator: five clients, each with a process of its own, and the same answers; as an
exported job that FLARE runs by itself, and carried for a coordinator that is killed in the middle and resumes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import prepare
from fivefold.cli.main import run
from fivefold.engines.flare.job import write_allow_list
from fivefold.engines.flare.workspace import examined
from fivefold.results.write import read_results
from tests.environments import environment
from tests.journeys import flare_federation
from tests.journeys.consortium import command, killed_in_round


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared, and run in this process."""
    out = tmp_path_factory.mktemp("flare") / "lung"
    assert prepare.main(["lung", str(out)]) == 0
    assert run(["run", str(out / "study.yaml"), "--out", str(out / "local"), "--quiet"]) == 0
    return out


def over_flare(lung: Path, how: str) -> tuple[object, ...]:
    return (
        "run",
        lung / "study.yaml",
        how,
        lung / "flare",
        "--engine",
        "flare",
        "--flare-python",
        environment("flare") / "python",
    )


def test_a_coordinator_killed_under_flare_resumes_over_another_job(lung: Path) -> None:
    killed_in_round(3, *over_flare(lung, "--out"))
    assert not (lung / "flare" / "result.json").exists()
    again = subprocess.run(command(*over_flare(lung, "--resume")), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    first = next(line for line in again.stderr.splitlines() if line.startswith("round"))
    assert int(first.split()[1]) > 3, "answered rounds are replayed, not asked again"
    the_numbers_are_those_of_the_local_run(lung, lung / "flare")
    it_is_an_ordinary_run_folder(lung, lung / "flare")
    assert (lung / "flare" / "ro-crate-metadata.json").exists()


def test_the_exported_job_runs_in_flare_alone(lung: Path, tmp_path: Path) -> None:
    """As a server and its clients run it: the coordinator is in the job, on the server, and no process of ours is there."""
    assert run(["export", "flare", str(lung / "study.yaml"), str(tmp_path / "job")]) == 0
    write_allow_list(tmp_path / "workspace" / "local")
    sites = sorted(site.name for site in (lung / "sites").iterdir())
    words = (str(tmp_path / "job"), "-w", str(tmp_path / "workspace"), "-c", ",".join(sites), "-t", "5", "-m", "100")
    done = subprocess.run(
        [str(environment("flare") / "python"), "-m", "nvflare.private.fed.app.simulator.simulator", *words],
        env=os.environ | {"FIVEFOLD_SITES": str(lung / "sites")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (folder,) = (tmp_path / "workspace" / "server").rglob("fivefold")
    the_numbers_are_those_of_the_local_run(lung, folder)
    it_is_an_ordinary_run_folder(lung, folder)


def test_a_provisioned_federation_runs_the_job_with_code_classes_and_logs_shut(lung: Path, tmp_path: Path) -> None:
    """FLARE's own provisioning, a server and five clients as services, TLS both ways; the doctor finds nothing to say."""
    assert run(["export", "flare", str(lung / "study.yaml"), str(tmp_path / "job")]) == 0
    sites, python = sorted(site.name for site in (lung / "sites").iterdir()), environment("flare") / "python"
    kits = flare_federation.provisioned(tmp_path / "federation", python, sites)
    assert {c.name for c in examined(kits / sites[0]) if c.state == "fault"} == {"FLARE byoc", "FLARE classes", "FLARE logs"}
    resources = kits / "server" / "local" / "resources.json.default"
    resources.write_text(resources.read_text("utf-8").replace("/tmp/nvflare", str(tmp_path / "storage")), "utf-8")
    for name in ("server", *sites):
        write_allow_list(kits / name / "local")
        flare_federation.forbid_code(kits / name / "local")
    for name in sites:
        assert all(c.state == "ok" for c in examined(kits / name) if c.name != "FLARE shell")
    with flare_federation.running(kits, python, sites, lung / "sites"):
        status, folder = flare_federation.submitted(kits, python, tmp_path / "job", len(sites))
    assert status == "FINISHED:COMPLETED", (kits / "server" / "said.log").read_text("utf-8")[-3000:]
    the_numbers_are_those_of_the_local_run(lung, folder / "workspace" / "fivefold")
    it_is_an_ordinary_run_folder(lung, folder / "workspace" / "fivefold")


def the_numbers_are_those_of_the_local_run(lung: Path, folder: Path) -> None:
    local, flare = read_results(lung / "local"), read_results(folder)
    assert list(local) == list(flare)
    for name, result in local.items():
        assert flare[name].sites == result.sites
        for title, table in result.tables.items():
            other = flare[name].tables[title]
            assert other.columns == table.columns
            for column in table.columns:
                _same(other.column(column), table.column(column))


def it_is_an_ordinary_run_folder(lung: Path, folder: Path) -> None:
    """It says what carried it, and every log follows."""
    assert json.loads((folder / "result.json").read_text())["run"]["engine"] == "flare"
    assert run(["audit", "verify", str(folder / "audit.jsonl")]) == 0
    for site in (lung / "sites").iterdir():
        assert run(["audit", "verify", str(next((site / "state").glob("audit.jsonl")))]) == 0


def _same(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        if isinstance(b, float) and isinstance(a, float):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
        else:
            assert a == b
