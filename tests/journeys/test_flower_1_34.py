"""The deployment over flwr 1.34, the last that NVIDIA FLARE carries: results and a killed site are as over the newest."""

from __future__ import annotations

import subprocess

from tests.environments import ROOT, environment


def test_lung_over_flwr_1_34_is_the_in_process_run_and_a_killed_site_costs_two_rounds_at_most() -> None:
    tests = (
        "the_result_is_that_of_the_in_process_engine",
        "a_killed_site_costs_its_share_of_two_rounds_at_most",
        "a_site_that_was_not_admitted_is_told_so",
    )
    command = [environment("flwr134") / "python", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [f"tests/journeys/test_flower_deployment.py::test_{name}" for name in tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
