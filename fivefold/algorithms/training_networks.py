"""Many small clients at once, of a network in PyTorch: `torch.func.vmap` trains a whole block of clients in one call.

The twin of `training_rows.descend` with full batches, as `training_vectorised.Blocks` is of linear models: the same updates,
to the precision of the network's numbers. Each client has weights of its own from its second step on; rows beyond a client's
own weigh nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.training_vectorised import Reals, clipped, row_weights
from fivefold.models import torch as network
from fivefold.models.model import ModelSpec, build, named

BLOCK = 50
"""Clients in one call: enough that the call itself costs little, few enough that activities stay in the cache."""
KINDS = ("torch_mlp", "torch_cnn")
"""Models whose updates are made for many clients in one call."""


@dataclass
class Networks:
    """Adds up the weighted updates of many clients, block after block, without holding any. Fields as `Blocks` has them."""

    spec: ModelSpec
    weights: Reals
    rate: float
    epochs: int = 1
    clip: float = 0.0

    def __post_init__(self) -> None:
        self.total: npt.NDArray[np.float64] = np.zeros(len(self.weights))
        """Σ share_i · update_i over the clients so far, shape (size,)."""

    def add(self, x: Reals, y: Reals, held: npt.NDArray[np.int64], share: npt.NDArray[np.float64]) -> None:
        """One block: x (clients, rows, features), of which client i holds the first `held[i]` rows; y (clients, rows); `share`
        (clients,), the weight of each client's update in the sum, 0 for one without rows."""
        row = row_weights(x, held)
        updates = local_updates(self.spec, self.weights, x, y, row, rate=self.rate, epochs=self.epochs)
        if self.clip:
            share = clipped(share, updates, self.clip)
        self.total += share @ updates


def local_updates(
    spec: ModelSpec, weights: Reals, x: Reals, y: Reals, row: npt.NDArray[np.float64], *, rate: float, epochs: int
) -> npt.NDArray[np.float64]:
    """The change of the weights at every client after `epochs` full-batch steps, shape (clients, size). `row` (clients, rows):
    what each row weighs in its client's mean loss; a client whose rows weigh nothing changes nothing."""
    model: Any = build(spec)
    shapes: Mapping[str, tuple[int, ...]] = model.shapes
    start = np.asarray(weights, dtype=np.float64)
    at = np.tile(start, (len(x), 1))
    with network.exactly() as torch:

        def loss(own: Mapping[str, Any], rows: Any, target: Any, weight: Any) -> Any:
            penalty = sum((w * w).sum() for w in own.values() if w.ndim > 1) if spec.l2 else 0.0
            return (row_losses(spec, model.scores(own, rows), target) * weight).sum() + spec.l2 / 2 * penalty

        slopes = torch.func.vmap(torch.func.grad(loss))
        rows, weight = network.tensor(spec, np.asarray(x, np.float64)), network.tensor(spec, row)
        target = network.outcome(spec, np.asarray(y, np.float64))
        for _ in range(epochs):
            own = {name: network.tensor(spec, part) for name, part in _split(at, shapes).items()}
            found = slopes(own, rows, target, weight)
            at -= rate * np.concatenate([network.plain(g).reshape(len(x), -1) for g in found.values()], axis=1)
    at -= start
    at[row.sum(axis=1) == 0] = 0.0
    return at


def row_losses(spec: ModelSpec, score: Any, y: Any) -> Any:
    """The loss of each row as a tensor (rows,); its mean is `models.torch.objective` without the penalty."""
    from torch.nn import functional as f

    if spec.task == "regression":
        return (score[:, 0] - y) ** 2 / 2
    if spec.task == "binary":
        return f.binary_cross_entropy_with_logits(score[:, 0], y, reduction="none")
    return f.cross_entropy(score, y, reduction="none")


def _split(at: npt.NDArray[np.float64], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float64]]:
    """Flat weights of many clients (clients, size) by name, each with a leading axis of clients."""
    first = named(np.arange(at.shape[1], dtype=np.float64), shapes)
    return {n: at[:, int(p.flat[0]) : int(p.flat[0]) + p.size].reshape(len(at), *p.shape) for n, p in first.items()}
