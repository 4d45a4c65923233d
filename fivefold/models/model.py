"""The seam between training and models: a model is a set of named weights of public shapes and four pure functions of them.

Every shape follows from the signed study, so that coordinator and sites agree on a flat vector of weights without a row.
Between sites only that vector travels, as numbers; never code, never a pickle. A new kind of model is one module and one line
in KINDS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Weights = Mapping[str, Floats]
"""By name, in the order of `Model.shapes`."""
Task = Literal["regression", "binary", "classes"]

KINDS: dict[str, tuple[str, tuple[Task, ...]]] = {
    "linear": ("fivefold.models.linear", ("regression",)),
    "logistic": ("fivefold.models.linear", ("binary",)),
    "softmax": ("fivefold.models.linear", ("classes",)),
    "mlp": ("fivefold.models.perceptron", ("regression", "binary", "classes")),
    "sklearn_sgd": ("fivefold.models.sklearn", ("regression", "binary", "classes")),
    "sklearn_mlp": ("fivefold.models.sklearn", ("regression", "binary", "classes")),
    "torch_mlp": ("fivefold.models.torch", ("regression", "binary", "classes")),
    "torch_cnn": ("fivefold.models.torch", ("regression", "binary", "classes")),
    "code": ("fivefold.models.user_code", ("regression", "binary", "classes")),
}
"""Kind in the study file → module with a `build(spec) -> Model`, and the tasks that it can do."""
MORE: dict[str, tuple[str, ...]] = {
    "torch_mlp": ("precision", "lora"),
    "torch_cnn": ("precision", "image", "channels", "lora"),
    "code": ("source", "digest", "shapes", "head", "seconds", "megabytes"),
}
"""Kind → the keys that only it reads; its module has `options(kind, given, features)`, which checks them."""
HIDDEN = {"mlp": (16,), "sklearn_mlp": (16,), "torch_mlp": (16,)}
"""Hidden layers where the study names none."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as the study names it. `features` are the columns of x, `outputs` the numbers predicted for a row: 1, or the
    number of classes. `hidden` are the widths of hidden layers; `l2` is the penalty (l2 / 2)·|w|² on all but intercepts."""

    kind: str
    task: Task
    features: int
    outputs: int
    intercept: bool = True
    hidden: tuple[int, ...] = ()
    l2: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)
    """What a kind of model reads beyond this."""

    def as_arguments(self) -> dict[str, Any]:
        """Plain values, as they travel in a question."""
        return {
            "kind": self.kind, "task": self.task, "features": self.features, "outputs": self.outputs,
            "intercept": self.intercept, "hidden": self.hidden, "l2": self.l2, "more": dict(self.more),
        }  # fmt: skip

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `as_arguments`."""
        return cls(**{**arguments, "hidden": tuple(arguments["hidden"])})


def more(kind: str, given: Mapping[str, Any], features: int) -> dict[str, Any]:
    """What only this kind of model reads, checked. Raises `ValueError` with a sentence."""
    return import_module(KINDS[kind][0]).options(kind, given, features) if kind in MORE else {}


class Model(Protocol):
    """Weights in, weights out. x has shape (rows, features), y (rows,): a number, 0 or 1, or the index of a class.

    All functions are deterministic, whatever the number of threads, and change none of their arguments.
    """

    @property
    def spec(self) -> ModelSpec:
        """What it was built from."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each array of weights, in order."""

    @property
    def head(self) -> tuple[str, ...]:
        """The weights of the last layer: what stays at the site in a personalised training."""

    def initial(self, rng: np.random.Generator) -> Weights:
        """Where training starts."""

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        """The mean loss of these rows (with penalty) and its gradient."""

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        """The weights after one step of descent on these rows (or one pass, for a model that knows no gradient)."""

    def predict(self, weights: Weights, x: Floats) -> Floats:
        """Shape (rows, outputs): a number, the probability of 1, or that of each class."""


@runtime_checkable
class ByRow(Protocol):
    """A model that takes many rows' own gradients in one call, each of which follows from that row alone, bit for bit."""

    def row_gradients(self, weights: Weights, x: Floats, y: Floats) -> Floats:
        """The gradient of each row's loss (with penalty), shape (rows, size)."""


def build(spec: ModelSpec) -> Model:
    """The model of a spec; its module is imported only now."""
    model: Model = import_module(KINDS[spec.kind][0]).build(spec)
    return model


def size(model: Model) -> int:
    """The number of weights."""
    return sum(math.prod(shape) for shape in model.shapes.values())


def flat(weights: Weights) -> Floats:
    """All weights as one vector, shape (size,)."""
    return np.concatenate([np.asarray(w, dtype=np.float64).reshape(-1) for w in weights.values()])


def named(vector: Floats, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """The inverse of `flat`, as views."""
    out, start = {}, 0
    for name, shape in shapes.items():
        width = math.prod(shape)
        out[name] = vector[start : start + width].reshape(shape)
        start += width
    return out


def positions(shapes: Mapping[str, tuple[int, ...]], names: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Which places of the flat vector belong to these weights, shape (size,)."""
    return np.concatenate([np.full(math.prod(shape), name in names) for name, shape in shapes.items()])


def times(a: Floats, b: Floats) -> Floats:
    """A matrix product whose order of addition is fixed: (n, p) and (p,) or (p, k). A BLAS may split it by its threads."""
    return np.asarray(np.einsum("ij,j->i" if b.ndim == 1 else "ij,jk->ik", a, b))
