"""FLARE's simulator on the workload of `benchmarks.simulation`, one local step; run by a Python with nvflare, without Fivefold.

    python benchmarks/peer_flare_simulation.py DATA INTERVAL

DATA is a folder with x.npy and y.npy; INTERVAL is `task_request_interval` in seconds, how often a client asks for work, or
`default`. FLARE keeps a process for each client, so two clients here train fifty users each in a plain NumPy loop: the most
favourable way for FLARE. Prints client updates a second, from the first round to the last; starting is not counted.
"""
# mypy: ignore-errors

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS, COHORT, FEATURES, CLASSES, ROWS, RATE = 6, 100, 784, 10, 20, 0.1

TRAINER = '''
import os
import time
import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor


class Trainer(Executor):
    """Fifty users a round, each one step from the shared weights; the sum goes back as one mean."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        with open(os.environ["PEER_TIMES"], "a") as times:
            times.write(f"{time.time()}\\n")
        weights = from_shareable(shareable).data
        w, c = np.array(weights["w"]), np.array(weights["c"])
        folder, half = os.environ["PEER_DATA"], COHORT // 2
        x, y = np.load(f"{folder}/x.npy", mmap_mode="r"), np.load(f"{folder}/y.npy", mmap_mode="r")
        first = 0 if fl_ctx.get_identity_name() == "site-1" else len(x) // 2
        total, total_c, rows = np.zeros_like(w), np.zeros_like(c), np.arange(ROWS)
        for user in first + np.random.default_rng().choice(len(x) // 2, half, replace=False):
            a, b = x[user], y[user]
            z = a @ w + c
            z -= z.max(1, keepdims=True)
            np.exp(z, out=z)
            z /= z.sum(1, keepdims=True)
            z[rows, b] -= 1
            z *= RATE / ROWS
            total -= a.T @ z
            total_c -= z.sum(0)
        new = {"w": w + total / half, "c": c + total_c / half}
        return DXO(DataKind.WEIGHTS, data=new, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: half}).to_shareable()
'''
SERVER = '''
import numpy as np
from nvflare.app_common.workflows.fedavg import FedAvg


class Averaging(FedAvg):
    """FLARE's own, with the first weights; nothing is saved, which favours FLARE."""

    def __init__(self, rounds):
        first = {"w": np.zeros((FEATURES, CLASSES), np.float32), "c": np.zeros(CLASSES, np.float32)}
        super().__init__(num_clients=2, num_rounds=rounds, persistor_id="", model=first, save_filename="m")

    def save_model(self, model):
        pass
'''


def main(data: str, interval: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        custom, config = Path(place) / "job" / "app" / "custom", Path(place) / "job" / "app" / "config"
        custom.mkdir(parents=True)
        config.mkdir()
        head = f"COHORT, FEATURES, CLASSES, ROWS, RATE = {(COHORT, FEATURES, CLASSES, ROWS, RATE)}\n"
        (custom / "peer_trainer.py").write_text(head + TRAINER)
        (custom / "peer_averaging.py").write_text(head + SERVER)
        clients = {"min_clients": 2, "deploy_map": {"app": ["@ALL"]}}
        (Path(place) / "job" / "meta.json").write_text(json.dumps({"name": "peer", "resource_spec": {}} | clients))
        server = {"workflows": [{"id": "w", "path": "peer_averaging.Averaging", "args": {"rounds": ROUNDS}}], "components": []}
        client = {"executors": [{"tasks": ["*"], "executor": {"path": "peer_trainer.Trainer", "args": {}}}], "components": []}
        if interval != "default":
            server["server"] = {"task_request_interval": float(interval)}
            client["default_task_fetch_interval"] = float(interval)
        common = {"format_version": 2, "task_data_filters": [], "task_result_filters": []}
        (config / "config_fed_server.json").write_text(json.dumps(common | server))
        (config / "config_fed_client.json").write_text(json.dumps(common | client))
        times = Path(place) / "times"
        command = [sys.executable, "-m", "nvflare.private.fed.app.simulator.simulator", f"{place}/job"]
        done = subprocess.run(
            [*command, "-w", f"{place}/workspace", "-n", "2", "-t", "2"],
            env=os.environ | {"PEER_TIMES": str(times), "PEER_DATA": data},
            capture_output=True,
            text=True,
        )
        if not times.exists():
            sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
        began = sorted(map(float, times.read_text().split()))[::2]
        print(COHORT * (len(began) - 1) / (began[-1] - began[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
