"""Linear, logistic and multinomial (softmax) regression in NumPy, by gradients.

Mean losses: squared error / 2, and the negative log-likelihood (McCullagh and Nelder, 1989). Beside the functions of one site
stand their twins with a leading axis of clients, which train many small clients in one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.models.model import Floats, ModelSpec, Weights, times


def build(spec: ModelSpec) -> Linear:
    return Linear(spec)


@dataclass(frozen=True)
class Linear:
    """Weights: `coefficients` (features, outputs) and, with an intercept, `intercept` (outputs,)."""

    spec: ModelSpec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        constant = {"intercept": (self.spec.outputs,)} if self.spec.intercept else {}
        return {"coefficients": (self.spec.features, self.spec.outputs)} | constant

    @property
    def head(self) -> tuple[str, ...]:
        return ("intercept",) if self.spec.intercept else ("coefficients",)

    def initial(self, rng: np.random.Generator) -> Weights:
        """Zeros: the losses are convex."""
        return {name: np.zeros(shape) for name, shape in self.shapes.items()}

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        n, w = len(y), weights["coefficients"]
        score = scores(weights, x)
        loss, residual = losses(self.spec.task, score, y), residuals(self.spec.task, score, y)
        penalty = self.spec.l2 / 2 * float((w * w).sum())
        gradient = {"coefficients": np.einsum("ij,ik->jk", x, residual) / n + self.spec.l2 * w}
        if "intercept" in weights:
            gradient["intercept"] = residual.sum(axis=0) / n
        return float(loss.sum()) / n + penalty, gradient

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        _, gradient = self.loss_and_gradient(weights, x, y)
        return {name: w - rate * gradient[name] for name, w in weights.items()}

    def predict(self, weights: Weights, x: Floats) -> Floats:
        return mean(self.spec.task, scores(weights, x))


def scores(weights: Weights, x: Floats) -> Floats:
    """x w + b, shape (rows, outputs)."""
    out = times(x, weights["coefficients"])
    return out + weights["intercept"] if "intercept" in weights else out


def mean(task: str, score: Floats) -> Floats:
    """Scores → expected outcomes (the number, the probability of 1, those of the classes); the last axis is the outputs."""
    if task == "regression":
        return score
    if task == "binary":
        return sigmoid(score)
    shifted = np.exp(score - score.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(score: Floats) -> Floats:
    """1 / (1 + e^-s), without overflow."""
    small = np.exp(-np.abs(score))
    return np.where(score >= 0, 1.0, small) / (1.0 + small)


def losses(task: str, score: Floats, y: Floats) -> Floats:
    """The loss of each row: scores (..., outputs) and outcomes (...) with any leading axes, shape (...)."""
    if task == "regression":
        return np.square(score[..., 0] - y) / 2
    if task == "binary":
        return np.asarray(np.logaddexp(0.0, score[..., 0]) - y * score[..., 0])
    away = score - score.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(away, y.astype(np.int64)[..., None], axis=-1)[..., 0]
    return np.asarray(np.log(np.exp(away).sum(axis=-1)) - chosen)


def residuals(task: str, score: Any, y: Any) -> Any:
    """The derivative of each row's loss by its scores, shape (..., outputs), in the type of the scores."""
    if task != "classes":
        return mean(task, score) - y[..., None]
    residual = mean(task, score)
    chosen = y.astype(np.int64)[..., None]
    np.put_along_axis(residual, chosen, np.take_along_axis(residual, chosen, axis=-1) - 1.0, axis=-1)
    return residual
