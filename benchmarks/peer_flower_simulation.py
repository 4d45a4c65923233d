"""Flower's simulation engine on training that does nothing: python -m benchmarks.peer_flower_simulation CLIENTS WIDTH ROUNDS

Prints client updates a second, from the first round to the last; starting Ray is not counted, which favours Flower.
"""

from __future__ import annotations

import logging
import sys
import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


def main(clients: int, width: int, rounds: int) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    client, server, took = ClientApp(), ServerApp(), list[float]()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
        return Message(content=content, reply_to=message)

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=clients)
        first = ArrayRecord([np.zeros(width, dtype=np.float32)])
        strategy.start(grid=grid, initial_arrays=first, num_rounds=1)  # workers start
        began = time.perf_counter()
        strategy.start(grid=grid, initial_arrays=first, num_rounds=rounds)
        took.append(time.perf_counter() - began)

    run_simulation(server, client, num_supernodes=clients, backend_config={"client_resources": {"num_cpus": 1}})
    print(clients * rounds / took[0])


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
