"""A multilayer perceptron in NumPy: ReLU layers, the losses of `linear` on top (Rumelhart, Hinton, Williams, Nature 1986)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fivefold.models.linear import losses, mean, residuals
from fivefold.models.model import Floats, ModelSpec, Weights, times


def build(spec: ModelSpec) -> Perceptron:
    return Perceptron(spec)


@dataclass(frozen=True)
class Perceptron:
    """Weights `layer1` (features, width), `bias1` (width,), `layer2` ... up to the outputs."""

    spec: ModelSpec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        widths = (self.spec.features, *self.spec.hidden, self.spec.outputs)
        out: dict[str, tuple[int, ...]] = {}
        for i in range(1, len(widths)):
            out[f"layer{i}"], out[f"bias{i}"] = (widths[i - 1], widths[i]), (widths[i],)
        return out

    @property
    def layers(self) -> int:
        return len(self.spec.hidden) + 1

    @property
    def head(self) -> tuple[str, ...]:
        return (f"layer{self.layers}", f"bias{self.layers}")

    def initial(self, rng: np.random.Generator) -> Weights:
        """Uniform within sqrt(6 / (in + out)) (Glorot and Bengio, AISTATS 2010), drawn in float32 steps; biases 0."""
        out = {}
        for name, shape in self.shapes.items():
            wide = np.sqrt(6.0 / (shape[0] + shape[-1])) if len(shape) == 2 else 0.0
            out[name] = rng.uniform(-wide, wide, shape).astype(np.float32).astype(np.float64)
        return out

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        n, active = len(y), self._forward(weights, x)
        loss, behind = losses(self.spec.task, active[-1], y), residuals(self.spec.task, active[-1], y)
        penalty, back = 0.0, {}
        for i in range(self.layers, 0, -1):
            w = weights[f"layer{i}"]
            penalty += self.spec.l2 / 2 * float((w * w).sum())
            back[f"layer{i}"] = np.einsum("ij,ik->jk", active[i - 1], behind) / n + self.spec.l2 * w
            back[f"bias{i}"] = behind.sum(axis=0) / n
            if i > 1:
                behind = times(behind, np.ascontiguousarray(w.T)) * (active[i - 1] > 0)
        return float(loss.sum()) / n + penalty, {name: back[name] for name in self.shapes}

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        _, gradient = self.loss_and_gradient(weights, x, y)
        return {name: w - rate * gradient[name] for name, w in weights.items()}

    def predict(self, weights: Weights, x: Floats) -> Floats:
        return mean(self.spec.task, self._forward(weights, x)[-1])

    def _forward(self, weights: Weights, x: Floats) -> list[Floats]:
        """The input, each hidden layer's activity, and the scores."""
        out = [x]
        for i in range(1, self.layers + 1):
            score = times(out[-1], weights[f"layer{i}"]) + weights[f"bias{i}"]
            out.append(np.maximum(score, 0.0) if i < self.layers else score)
        return out
