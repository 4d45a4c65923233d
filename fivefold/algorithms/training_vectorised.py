"""Many small clients at once: the local updates of a linear model for a whole block of clients, in one call of NumPy.

The twin of `training_rows.descend` with full batches, with a leading axis of clients: same weights in, same updates out.
Clients hold different numbers of rows, so their arrays are filled up and a mask says which rows count. Blocks of about ten
clients stay in the cache; all buffers are made once for all blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fivefold.models.linear import residuals
from fivefold.models.model import ModelSpec

Reals = npt.NDArray[np.floating]
BLOCK = 10


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
    if spec.kind not in ("linear", "logistic", "softmax"):
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
