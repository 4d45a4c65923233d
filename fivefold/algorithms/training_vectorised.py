"""Many small clients at once: the local updates of a linear model for a whole block of clients, in one call of NumPy.

The twin of `training_rows.descend` with full batches, with a leading axis of clients: same weights in, same updates out.
Clients hold different numbers of rows, so their arrays are filled up and a mask says which rows count. Blocks of about ten
clients stay in the cache; all buffers are made once for all blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.models.linear import residuals
from fivefold.models.model import ModelSpec

Reals = npt.NDArray[np.floating]
BLOCK = 10
KINDS = ("linear", "logistic", "softmax")
"""Models whose updates are made for many clients in one call."""


def local_updates(
    spec: ModelSpec,
    weights: Reals,
    x: Reals,
    y: Reals,
    mask: npt.NDArray[np.bool_],
    *,
    rate: float,
    epochs: int = 1,
    block: int = BLOCK,
    out: Reals | None = None,
) -> Reals:
    """The change of the weights at every client after `epochs` full-batch steps, shape (clients, size), in the type of x.

    `weights` (size,): coefficients, then the intercept, as `model.flat` lays them out. x (clients, rows, features), y and mask
    (clients, rows). A client without rows changes nothing. `out` is filled where it is given.
    """
    if spec.kind not in KINDS:
        raise ValueError(f"only linear models train many clients in one call, not {spec.kind!r}")
    clients, rows, p = x.shape
    k, wide = spec.outputs, spec.features * spec.outputs
    size = wide + (k if spec.intercept else 0)
    out = np.empty((clients, size), dtype=x.dtype) if out is None else out
    start = np.asarray(weights, dtype=x.dtype)
    slope, constant = start[:wide].reshape(p, k), start[wide:]
    held = mask.sum(axis=1)
    weight = (mask / np.maximum(held, 1)[:, None]).astype(x.dtype)
    w, b = np.empty((block, p, k), dtype=x.dtype), np.zeros((block, k), dtype=x.dtype)
    gradient, score = np.empty_like(w), np.empty((block, rows, k), dtype=x.dtype)
    for first in range(0, clients, block):
        here = slice(first, min(first + block, clients))
        n = here.stop - first
        xs, ws, bs, gs, ss = x[here], w[:n], b[:n], gradient[:n], score[:n]
        ws[:], bs[:] = slope, constant if spec.intercept else 0.0
        transposed = xs.transpose(0, 2, 1)
        for epoch in range(epochs):
            if epoch == 0:  # all clients stand at the same weights: one product
                np.matmul(xs.reshape(n * rows, p), slope, out=ss.reshape(n * rows, k))
            else:
                np.matmul(xs, ws, out=ss)
            if spec.intercept:
                ss += bs[:, None, :]
            residual = residuals(spec.task, ss, y[here]).astype(x.dtype, copy=False)
            residual *= weight[here][..., None]
            np.matmul(transposed, residual, out=gs)
            if spec.l2:
                gs += spec.l2 * ws
            gs *= rate
            ws -= gs
            if spec.intercept:
                bs -= rate * residual.sum(axis=1)
        ws -= slope
        out[here, :wide] = ws.reshape(n, wide)
        if spec.intercept:
            out[here, wide:] = bs - constant
    out[held == 0] = 0.0
    return out


def row_weights(x: Reals, held: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """What each row weighs in its client's mean, shape (clients, rows): nothing beyond the first `held[i]` of client i."""
    return (np.arange(x.shape[1]) < held[:, None]) / np.maximum(held, 1)[:, None]


def clipped(share: npt.NDArray[np.float64], updates: Reals, clip: float) -> npt.NDArray[np.float64]:
    """The weights of the clients' updates (clients, size), so that none counts for more than a norm of `clip`."""
    norm = np.sqrt(np.square(updates, dtype=np.float64).sum(axis=1))
    factor: npt.NDArray[np.float64] = np.minimum(1.0, clip / np.maximum(norm, np.finfo(np.float64).tiny))
    return share * factor


@dataclass
class Blocks:
    """Adds up the weighted updates of many clients, block after block, without holding any. Buffers are made once, and again
    only where a block is larger than all before it."""

    spec: ModelSpec
    weights: Reals
    """Where every client starts, shape (size,)."""
    rate: float
    epochs: int = 1
    clip: float = 0.0
    """The largest L2 norm of a client's update (0: none)."""

    def __post_init__(self) -> None:
        if self.spec.kind not in KINDS:
            raise ValueError(f"only linear models train many clients in one call, not {self.spec.kind!r}")
        self.total: npt.NDArray[np.float64] = np.zeros(len(self.weights))
        """Σ share_i · update_i over the clients so far, shape (size,)."""
        self._shape: tuple[int, ...] = ()

    def add(self, x: Reals, y: Reals, held: npt.NDArray[np.int64], share: npt.NDArray[np.float64]) -> None:
        """One block: x (clients, rows, features), of which client i holds the first `held[i]` rows; y (clients, rows); `share`
        (clients,), the weight of each client's update in the sum, 0 for one without rows."""
        row = row_weights(x, held)
        if self.epochs == 1 and not self.clip:
            self._one_step(x, y, row * share[:, None], float(share.sum()))
            return
        updates = local_updates(
            self.spec, self.weights, x, y, row > 0, rate=self.rate, epochs=self.epochs, block=len(x), out=self._updates(x)
        )
        if self.clip:
            share = clipped(share, updates, self.clip)
        self.total += share.astype(x.dtype) @ updates

    def _one_step(self, x: Reals, y: Reals, row: npt.NDArray[np.float64], shares: float) -> None:
        """The sum of gradients at one point is one product: no client's own update is made."""
        (clients, rows, p), k = x.shape, self.spec.outputs
        flat, wide = x.reshape(clients * rows, p), p * k
        start = np.asarray(self.weights, dtype=x.dtype)
        slope = start[:wide].reshape(p, k)
        score = flat @ slope
        if self.spec.intercept:
            score += start[wide:]
        residual = residuals(self.spec.task, score, y.reshape(-1)).astype(x.dtype, copy=False)
        residual *= row.reshape(-1, 1).astype(x.dtype)
        gradient = self._product(p, k, x.dtype)
        np.matmul(flat.T, residual, out=gradient)
        gradient *= self.rate
        self.total[:wide] -= gradient.reshape(-1)
        if self.spec.l2:
            self.total[:wide] -= self.rate * self.spec.l2 * shares * start[:wide]
        if self.spec.intercept:
            self.total[wide:] -= self.rate * residual.sum(axis=0, dtype=np.float64)

    def _product(self, p: int, k: int, dtype: Any) -> Reals:
        if self._shape != (p, k):
            self._shape, self._buffer = (p, k), np.empty((p, k), dtype=dtype)
        return self._buffer

    def _updates(self, x: Reals) -> Reals:
        if len(self._shape) != 3 or self._shape[0] < len(x):
            self._shape, self._buffer = (len(x), len(self.weights), 0), np.empty((len(x), len(self.weights)), dtype=x.dtype)
        return self._buffer[: len(x)]
