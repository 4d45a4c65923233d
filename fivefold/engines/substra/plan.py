"""`python -m fivefold.engines.substra.plan DIR --sites SITES --out RUN`: an exported plan in Substra's subprocess mode.

Every organisation is on this machine, and every task a process of its own. On a real Substra network the same `StudyPlan` is
given to `substrafl.experiment.execute_experiment` with the network's clients, datasets and permissions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import substra
from substra.sdk.schemas import BackendType, DataSampleSpec, DatasetSpec, Permissions
from substrafl.dependency import Dependency
from substrafl.experiment import execute_experiment
from substrafl.model_loading import download_aggregate_shared_state
from substrafl.nodes import AggregationNode, TrainDataNode

from fivefold.engines.substra.functions import WHERE, StudyPlan
from fivefold.engines.substra.steps import replayed
from fivefold.protocol.encoding import decode
from fivefold.protocol.results import Result
from fivefold.replay.cursor import Ended
from fivefold.results.write import write_result
from fivefold.study.digest import load_signed


def execute(folder: Path, sites: Path, out: Path, rounds: int | None = None) -> Path:
    """Run the plan of an exported folder; returns the run folder with `result.json`, tables and plots."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    signed = (folder / "study.signed.json").read_bytes()
    found = load_signed(signed)
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="fivefold-substra-") as scratch:
        names = [site.name for site in found.study.sites]
        clients = {name: substra.Client(client_name=name, backend_type=BackendType.LOCAL_SUBPROCESS) for name in names}
        head = substra.Client(client_name="coordinator", backend_type=BackendType.LOCAL_SUBPROCESS)
        coordinator = head.organization_info().organization_id
        nodes = [_node(clients[name], folder, Path(scratch) / name, sites / name, coordinator) for name in names]
        done = execute_experiment(
            client=head,
            strategy=StudyPlan(study=signed.decode()),
            train_data_nodes=nodes,
            aggregation_node=AggregationNode(coordinator),
            evaluation_strategy=None,
            num_rounds=rounds or plan["rounds"],
            experiment_folder=Path(scratch) / "experiment",
            dependencies=Dependency(),
            clean_models=False,
        )
        history = download_aggregate_shared_state(head, done.key, round_idx=rounds or plan["rounds"])["history"]
    cursor = replayed(found.study, history)
    if cursor.open is not None:
        sys.exit(f"The plan's rounds did not suffice: the study still asks after {len(decode(history))}. Export it with more.")
    results = {name: r for name, r in cursor.results.items() if isinstance(r, Result)}
    ended = {name: vars(r) for name, r in cursor.results.items() if isinstance(r, Ended)}
    out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"engine": "substra", "id": done.key.replace("-", ""), "started": _time(started)}
    about["ended"] = _time(datetime.now(UTC))
    meta = {"title": found.study.title, "digest": found.digest, "seed": found.study.seed, "ended": ended, "run": about}
    write_result(out, results, meta | {"rounds": len(decode(history))})
    return out


def _node(client: Any, folder: Path, sample: Path, site: Path, coordinator: str) -> TrainDataNode:
    """An organisation with its dataset: one sample, which says where the site's folder is."""
    organisation = client.organization_info().organization_id
    both = Permissions(public=False, authorized_ids=[organisation, coordinator])
    sample.mkdir()
    (sample / WHERE).write_text(str(site.resolve()), encoding="utf-8")
    dataset = client.add_dataset(
        DatasetSpec(
            name="site folder",
            data_opener=folder / "opener.py",
            description=folder / "README.md",
            permissions=both,
            logs_permission=Permissions(public=False, authorized_ids=[organisation]),
        )
    )
    key = client.add_data_sample(DataSampleSpec(data_manager_keys=[dataset], path=sample))
    return TrainDataNode(organisation, dataset, [key])


def _time(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


def main() -> None:
    """The command line of this module."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("folder", type=Path, help="What `fivefold export substra` wrote.")
    words.add_argument("--sites", type=Path, required=True, help="A folder for each site.")
    words.add_argument("--out", type=Path, required=True, help="The run folder.")
    words.add_argument("--rounds", type=int, help="Fewer or more rounds than the plan's upper bound.")
    given = words.parse_args()
    print(f"Run folder: {execute(given.folder, given.sites, given.out, given.rounds)}")


if __name__ == "__main__":
    main()
