"""The steps as substrafl functions, and their compute plan. Only an environment with substrafl imports this module.

substrafl carries its functions by cloudpickle, which is Substra's to admit at each organisation; what these functions hand on
between tasks is bytes of CBOR and nothing else. The code that runs is the Fivefold that the organisation installed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from substrafl.compute_plan_builder import ComputePlanBuilder
from substrafl.remote import remote, remote_data

from fivefold.engines.substra.steps import add, answer

WHERE = "site-folder.txt"
"""A data sample may hold this file with the path of the site's folder, instead of the folder's content."""


class StudyPlan(ComputePlanBuilder):  # type: ignore[misc]  # substrafl has no types
    """A signed study as a compute plan: `num_rounds` times a task at each site, then one that adds up."""

    def __init__(self, study: str) -> None:
        super().__init__(study=study)
        self.study = study.encode()

    @remote_data  # type: ignore[untyped-decorator]  # substrafl has no types
    def answer(self, data_from_opener: Any, shared_state: Any = None) -> dict[str, bytes]:
        history = shared_state["history"] if shared_state else b""
        folder = Path(data_from_opener)
        if (folder / WHERE).exists():
            folder = Path((folder / WHERE).read_text(encoding="utf-8").strip())
        return {"answer": answer(self.study, folder, history, datetime.now(UTC)), "history": history}

    @remote  # type: ignore[untyped-decorator]  # substrafl has no types
    def add(self, shared_states: Any) -> dict[str, bytes]:
        heard = list(shared_states)
        return {"history": add(self.study, [h["answer"] for h in heard], heard[0]["history"])}

    def build_compute_plan(
        self,
        train_data_nodes: Any,
        aggregation_node: Any,
        evaluation_strategy: Any = None,
        num_rounds: int | None = None,
        clean_models: bool | None = True,
    ) -> None:
        """Draw the plan into the nodes."""
        everyone = {aggregation_node.organization_id, *(node.organization_id for node in train_data_nodes)}
        local: dict[str, Any] = {}
        shared = None
        for round in range(1, (num_rounds or 0) + 1):
            answers = []
            for node in train_data_nodes:
                local[node.organization_id], reply = node.update_states(
                    self.answer(node.data_sample_keys, shared_state=shared, _algo_name="answer"),
                    local_state=local.get(node.organization_id),
                    round_idx=round,
                    authorized_ids={node.organization_id},
                    aggregation_id=aggregation_node.organization_id,
                    clean_models=bool(clean_models),
                )
                answers.append(reply)
            shared = aggregation_node.update_states(
                self.add(shared_states=answers, _algo_name="add"),
                round_idx=round,
                authorized_ids=everyone,
                clean_models=bool(clean_models) and round < (num_rounds or 0),
            )

    def save_local_state(self, path: Path) -> None:
        """A site keeps nothing between tasks; Substra wants a file."""
        path.write_bytes(b"")

    def load_local_state(self, path: Path) -> StudyPlan:
        return self
