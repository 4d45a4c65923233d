"""Many clients' networks in one call: the updates that each client would make by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.training_networks import Networks, local_updates
from fivefold.algorithms.training_rows import Part, Pull, descend
from fivefold.data.partitions import parse
from fivefold.engines import simulated_answers
from fivefold.engines.simulated_clients import real_rows
from fivefold.engines.simulation import simulate
from fivefold.models import lora, safetensors
from fivefold.models.model import ModelSpec, build, flat, named, size
from fivefold.protocol.results import Result
from tests.algorithms import real_data
from tests.algorithms.training_data import weights
from tests.engines.simulated import study, training

CNN = {"precision": "single", "image": (1, 4, 4), "channels": (3,)}
SPECS = [
    ModelSpec("torch_mlp", "regression", 16, 1, True, (5,), 0.0, {"precision": "single"}),
    ModelSpec("torch_mlp", "binary", 16, 1, True, (5, 3), 0.02, {"precision": "double"}),
    ModelSpec("torch_cnn", "classes", 16, 4, True, (), 0.01, CNN),
]


def clients(spec: ModelSpec) -> tuple[Any, ...]:
    """Seven clients of 0 to 9 rows, filled up with rows that would matter if they were counted."""
    r = np.random.default_rng(4)
    held = np.array([9, 4, 0, 1, 6, 9, 3])
    y = r.normal(size=(7, 9)) if spec.task == "regression" else r.integers(0, max(spec.outputs, 2), (7, 9)).astype(float)
    return r.normal(size=(7, 9, 16)), y, held, r.uniform(0.1, 1.0, 7) * (held > 0)


def one_by_one(spec: ModelSpec, at: np.ndarray, x: Any, y: Any, held: Any, *, rate: float) -> np.ndarray:
    model, out = build(spec), []
    for i in range(len(held)):
        own = Part(x[i, : held[i]], y[i, : held[i]], np.arange(held[i]))
        after, _ = descend(
            model, named(at, model.shapes), own, epochs=3, batch_size=0, rate=rate, rng=np.random.default_rng(0), pull=Pull()
        )  # fmt: skip
        out.append(flat(after) - at)
    return np.array(out)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.kind} {s.task}")
def test_each_client_s_update_is_its_own(spec: ModelSpec) -> None:
    at = flat(build(spec).initial(np.random.default_rng(1)))
    x, y, held, share = clients(spec)
    alone = one_by_one(spec, at, x, y, held, rate=0.3)
    row = (np.arange(9) < held[:, None]) / np.maximum(held, 1)[:, None]
    together = local_updates(spec, at, x, y, row, rate=0.3, epochs=3)
    assert np.abs(alone).max() > 0.05
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert not together[2].any()
    short = np.minimum(1.0, 0.1 / np.maximum(np.linalg.norm(alone, axis=1), 1e-300))
    many = Networks(spec, at, 0.3, 3, clip=0.1)
    many.add(x, y, held, share)
    np.testing.assert_allclose(many.total, (share * short) @ alone, rtol=0, atol=1e-6)


def test_adapters_of_many_clients_too() -> None:
    r = np.random.default_rng(2)
    plain_spec = SPECS[0]
    base = {n: r.normal(size=s) * 0.3 for n, s in build(plain_spec).shapes.items()}
    own = lora.options({"base": lora.keep(safetensors.dump(base)), "rank": 2}, build(plain_spec).shapes)
    spec = ModelSpec(**{**vars(plain_spec), "more": {"precision": "double", "lora": own}})
    at = r.normal(size=size(build(spec))) * 0.1
    x, y, held, _ = clients(spec)
    row = (np.arange(9) < held[:, None]) / np.maximum(held, 1)[:, None]
    alone = one_by_one(spec, at, x, y, held, rate=0.03)
    np.testing.assert_allclose(local_updates(spec, at, x, y, row, rate=0.03, epochs=3), alone, rtol=0, atol=1e-9)


def test_a_simulation_takes_this_way_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, setting, tables = real_data.breast()
    here = study(setting, training(model={"kind": "torch_mlp", "hidden": [8]}, local_epochs=2, rounds=3))
    source = real_rows(tables, "malignant", parse("iid"), clients=150, rows=4, seed=3)
    taken: list[int] = []
    add = Networks.add

    def counted(self: Networks, *blocks: Any) -> None:
        taken.append(1)
        add(self, *blocks)

    def ran() -> np.ndarray:
        found = simulate(here, source, 100).results["training"]
        assert isinstance(found, Result), found
        return weights(found)

    monkeypatch.setattr(Networks, "add", counted)
    together = ran()
    assert taken
    monkeypatch.setattr(simulated_answers.networks, "KINDS", ())
    taken.clear()
    np.testing.assert_allclose(together, ran(), rtol=0, atol=1e-6)
    assert not taken
