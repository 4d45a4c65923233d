"""What the test of the Ray engine runs in a process of its own, since Ray leaves open what it opens. Prints one line of JSON.
Not a test module."""

from __future__ import annotations

import json

import numpy as np

from fivefold.data.partitions import parse
from fivefold.engines.ray_cluster import RayCluster
from fivefold.engines.simulated_clients import MadeUpRows, made_up_rows
from fivefold.engines.simulation import Simulation, simulate
from fivefold.errors import SimulationInvalid
from fivefold.protocol.results import Result
from tests.algorithms import real_data
from tests.engines.simulated import study, training


def main() -> None:
    _, setting, _ = real_data.breast()

    def clients() -> MadeUpRows:
        return made_up_rows(setting.dictionary, "malignant", parse("dirichlet:0.3"), clients=1_000_000, rows=10, seed=3)

    here = study(setting, training(rounds=2, evaluate_every=1, batch_size=4))
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    cluster = RayCluster(clients())
    spread, alone = simulate(here, clients(), 30, answers=cluster), simulate(here, clients(), 30)
    try:
        simulate(study(setting, training("scaffold")), clients(), 10, answers=RayCluster(clients()))
        refused = ""
    except SimulationInvalid as error:
        refused = error.message
    ray.shutdown()
    apart = float(np.abs(_weights(spread) - _weights(alone)).max())
    print(json.dumps({"apart": apart, "messages": cluster.messages, "rounds": spread.rounds, "refused": refused}))


def _weights(done: Simulation) -> np.ndarray:
    result = done.results["training"]
    assert isinstance(result, Result)
    return np.array(result.tables["weights"].column("value"), dtype=float)


if __name__ == "__main__":
    main()
