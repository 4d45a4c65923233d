"""A Ray cluster of this machine: shares of the roster on workers, one partial sum back, the numbers of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.cli.main import run
from fivefold.data.partitions import parse
from fivefold.engines.ray_cluster import RayCluster
from fivefold.engines.simulated_clients import Clients, made_up_rows
from fivefold.engines.simulation import simulate
from fivefold.errors import SimulationInvalid
from fivefold.protocol.results import Result
from tests.algorithms import real_data
from tests.algorithms.training_data import weights
from tests.engines.simulated import study, training

_, SETTING, _ = real_data.breast()


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield ray
        ray.shutdown()


def clients() -> Clients:
    return made_up_rows(SETTING.dictionary, "malignant", parse("dirichlet:0.3"), clients=1_000_000, rows=10, seed=3)


def test_workers_give_the_numbers_of_one_process_and_one_message_a_question(ray: Any) -> None:
    here = study(SETTING, training(rounds=2, evaluate_every=1, batch_size=4))
    cluster = RayCluster(clients())
    spread, alone = simulate(here, clients(), 30, answers=cluster), simulate(here, clients(), 30)
    for name in spread.results:
        one, other = spread.results[name], alone.results[name]
        assert isinstance(one, Result)
        assert isinstance(other, Result)
        np.testing.assert_allclose(weights(one), weights(other), rtol=0, atol=1e-12)
        assert one.facts["persons"] == other.facts["persons"]
    assert cluster.messages == spread.rounds


def test_what_ends_a_client_s_step_ends_the_simulation_in_its_own_sentence(ray: Any) -> None:
    with pytest.raises(SimulationInvalid, match="keeps something at each client"):
        simulate(study(SETTING, training("scaffold")), clients(), 10, answers=RayCluster(clients()))


def test_real_sites_are_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(tmp_path / "study.yaml"), "--engine", "ray"]) == 80
    said = capsys.readouterr().err
    assert "one domain of trust" in said
    assert "fivefold simulate" in said
