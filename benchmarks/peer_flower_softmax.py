"""Flower's simulation engine on the workload of `benchmarks.simulation`, one local step.

    python -m benchmarks.peer_flower_softmax DATA

DATA is a folder with x.npy and y.npy, mapped into memory by each worker. Prints client updates a second, from the first round
to the last; starting Ray is not counted, which favours Flower.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

USERS, COHORT, ROUNDS, RATE = 10_000, 100, 4, 0.1


def step(a: Any, b: Any, w: Any, c: Any) -> tuple[Any, Any]:
    """One step of softmax regression from the shared weights: the client's new ones."""
    z = a @ w + c
    z -= z.max(1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(1, keepdims=True)
    z[np.arange(len(b)), b] -= 1
    z *= RATE / len(b)
    return w - a.T @ z, c - z.sum(0)


def main(data: str) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    client, server, took = ClientApp(), ServerApp(), list[float]()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        x, y = np.load(f"{data}/x.npy", mmap_mode="r"), np.load(f"{data}/y.npy", mmap_mode="r")
        user = int(context.node_config["partition-id"])
        shared = message.content["arrays"]
        assert isinstance(shared, ArrayRecord)
        w, c = shared.to_numpy_ndarrays()
        arrays = ArrayRecord(list(step(x[user], y[user], w, c)))
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": len(y[user])})})
        return Message(content=content, reply_to=message)

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=COHORT / USERS, fraction_evaluate=0.0, min_available_nodes=COHORT)
        first = ArrayRecord([np.zeros((784, 10), dtype=np.float32), np.zeros(10, dtype=np.float32)])
        strategy.start(grid=grid, initial_arrays=first, num_rounds=1)  # workers start
        began = time.perf_counter()
        strategy.start(grid=grid, initial_arrays=first, num_rounds=ROUNDS)
        took.append(time.perf_counter() - began)

    run_simulation(server, client, num_supernodes=USERS, backend_config={"client_resources": {"num_cpus": 1}})
    print(COHORT * ROUNDS / took[0])


if __name__ == "__main__":
    main(sys.argv[1])
