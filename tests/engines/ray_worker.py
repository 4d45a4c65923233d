"""What the test of the Ray engine runs in a process of its own, since Ray leaves open what it opens. Prints one line of JSON.
Not a test module."""

from __future__ import annotations

import json
import os

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
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    import ray
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=machines.address, log_to_driver=False, configure_logging=False)
    cluster = RayCluster(clients())
    spread, alone = simulate(here, clients(), 30, answers=cluster), simulate(here, clients(), 30)
    messages, shares = cluster.messages, [cluster.shares]
    machines.add_node(num_cpus=1)
    wider = simulate(here, clients(), 30, answers=cluster)
    shares.append(cluster.shares)
    try:
        simulate(study(setting, training("scaffold")), clients(), 10, answers=RayCluster(clients()))
        refused = ""
    except SimulationInvalid as error:
        refused = error.message
    ray.shutdown()
    machines.shutdown()
    apart = max(float(np.abs(_weights(other) - _weights(alone)).max()) for other in (spread, wider))
    told = {"apart": apart, "messages": messages, "rounds": spread.rounds, "shares": shares, "refused": refused}
    print(json.dumps(told))


def _weights(done: Simulation) -> np.ndarray:
    result = done.results["training"]
    assert isinstance(result, Result)
    return np.array(result.tables["weights"].column("value"), dtype=float)


if __name__ == "__main__":
    main()
