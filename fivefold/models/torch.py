"""Networks in PyTorch: a multilayer perceptron and a small convolutional network, as pure functions of named weights.

Shapes, initial weights and options need no torch: only who holds rows needs it. Everything is computed by one thread with
deterministic kernels, so that results do not depend on the machine's threads; weights are float32 (`precision: double` for
float64). Persons' own gradients come from `torch.func` (vmap of grad), each of which follows from that row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.errors import StudyInvalid
from fivefold.models.linear import mean
from fivefold.models.model import HIDDEN, Floats, Model, ModelSpec, Weights

BLOCK = 32
"""Rows whose gradients are taken in one call. Always so many (the last block is filled up), so that the same kernels run."""
Scores = Callable[[Mapping[str, Any], Any], Any]
"""Named tensors of weights and x (rows, features) → scores (rows, outputs), as tensors."""


def options(kind: str, given: Mapping[str, Any], features: int) -> dict[str, Any]:
    """What the study says of a network beyond widths: `precision`, `lora` (see there), and of `torch_cnn` `image` (channels,
    height, width) and `channels` of each convolution. Raises `ValueError` with a sentence."""
    precision = given.get("precision", "single")
    if precision not in ("single", "double"):
        raise ValueError(f"`precision` is {precision!r}; write `precision: single` or `precision: double`")
    own: dict[str, Any] = {"precision": precision}
    if kind == "torch_cnn":
        own |= _image(given, features)
    if "lora" in given:
        from fivefold.models import lora

        hidden = tuple(given.get("hidden", HIDDEN.get(kind, ())))
        own["lora"] = lora.options(given["lora"], Torch(ModelSpec(kind, "binary", features, 1, hidden=hidden, more=own)).shapes)
    return own


def _image(given: Mapping[str, Any], features: int) -> dict[str, Any]:
    image: Any = given.get("image")
    channels: Any = given.get("channels", (8, 16))
    if not _widths(image, 3) or math.prod(image) != features:
        raise ValueError(
            f"`image` is {image!r}; write `image: [1, 8, 8]`: channels, height, width, together {features} columns"
        )
    if not _widths(channels, len(channels) if isinstance(channels, (list, tuple)) else 1) or len(channels) > 4:
        raise ValueError(f"`channels` is {channels!r}; write `channels: [8, 16]`: those of each convolution, four at most")
    if min(image[1:]) < 2 ** len(channels):
        raise ValueError(f"an image of {image[1]} × {image[2]} cannot be halved {len(channels)} times; write fewer `channels`")
    return {"image": tuple(image), "channels": tuple(channels)}


def _widths(value: Any, count: int) -> bool:
    whole = isinstance(value, (list, tuple)) and len(value) == count and count > 0
    return whole and all(type(v) is int and 1 <= v <= 4096 for v in value)


def build(spec: ModelSpec) -> Model:
    """The network, or its adapters alone where the study names a base."""
    if "lora" not in spec.more:
        return Torch(spec)
    from fivefold.models.lora import Lora

    return Lora(spec)


@dataclass(frozen=True)
class Torch:
    """`torch_mlp`: ReLU layers `layer1` (width, features) and `bias1` (width,) up to the outputs, as torch.nn.Linear has them.
    `torch_cnn`: `conv1` (channels, channels before, 3, 3) with `conv_bias1`, ReLU and a maximum over 2 × 2 each; then
    `layer1`."""

    spec: ModelSpec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {}
        width = self.spec.features
        if self.spec.kind == "torch_cnn":
            before, height, across = self.spec.more["image"]
            for i, channels in enumerate(self.spec.more["channels"], 1):
                out[f"conv{i}"], out[f"conv_bias{i}"] = (channels, before, 3, 3), (channels,)
                before, height, across = channels, height // 2, across // 2
            width = before * height * across
        for i, wide in enumerate((*self.spec.hidden, self.spec.outputs), 1):
            out[f"layer{i}"], out[f"bias{i}"] = (wide, width), (wide,)
            width = wide
        return out

    @property
    def head(self) -> tuple[str, ...]:
        last = len(self.spec.hidden) + 1
        return (f"layer{last}", f"bias{last}")

    def initial(self, rng: np.random.Generator) -> Weights:
        return glorot(self.shapes, rng)

    def scores(self, weights: Mapping[str, Any], x: Any) -> Any:
        """The network itself: tensors in, tensors out."""
        from torch.nn import functional as f

        if self.spec.kind == "torch_cnn":
            x = x.reshape(-1, *self.spec.more["image"])
            for i in range(1, len(self.spec.more["channels"]) + 1):
                x = f.max_pool2d(f.relu(f.conv2d(x, weights[f"conv{i}"], weights[f"conv_bias{i}"], padding=1)), 2)
            x = x.flatten(1)
        layers = len(self.spec.hidden) + 1
        for i in range(1, layers + 1):
            x = f.linear(x, weights[f"layer{i}"], weights[f"bias{i}"])
            x = f.relu(x) if i < layers else x
        return x

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        return loss_and_gradient(self.spec, self.scores, weights, x, y)

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        _, gradient = self.loss_and_gradient(weights, x, y)
        return {name: w - rate * gradient[name] for name, w in weights.items()}

    def row_gradients(self, weights: Weights, x: Floats, y: Floats) -> Floats:
        return row_gradients(self.spec, self.scores, weights, x, y)

    def predict(self, weights: Weights, x: Floats) -> Floats:
        return predict(self.spec, self.scores, weights, x)


def glorot(shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> Weights:
    """Uniform within sqrt(6 / (in + out)) (Glorot and Bengio, AISTATS 2010), in float32 steps; vectors are 0. Shapes as torch
    lays them out: (out, in, ...)."""
    out = {}
    for name, shape in shapes.items():
        field = math.prod(shape[2:])
        wide = math.sqrt(6.0 / ((shape[0] + shape[1]) * field)) if len(shape) > 1 else 0.0
        out[name] = rng.uniform(-wide, wide, shape).astype(np.float32).astype(np.float64)
    return out


# ---- what every network of torch shares: LoRA and users' own models too -----------------------------------------------
def loss_and_gradient(spec: ModelSpec, scores: Scores, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
    """The mean loss (with the penalty on all but vectors) and its gradient, by reverse differentiation."""
    with exactly() as torch:
        at = {name: t.requires_grad_() for name, t in tensors(spec, weights).items()}
        loss = objective(spec, scores, at, tensor(spec, x), outcome(spec, y))
        gradients = torch.autograd.grad(loss, list(at.values()))
        return float(loss.detach()), {name: plain(g) for name, g in zip(at, gradients, strict=True)}


def row_gradients(spec: ModelSpec, scores: Scores, weights: Weights, x: Floats, y: Floats) -> Floats:
    """The gradient of each row's own loss (with the penalty), shape (rows, size): vmap of grad in blocks of always the same
    number of rows and in float64, so that a row's gradient has the same bits whoever else is there."""
    double = ModelSpec(**{**vars(spec), "more": {**spec.more, "precision": "double"}})
    with exactly() as torch:
        at = tensors(double, weights)

        def one(w: Mapping[str, Any], row: Any, target: Any) -> Any:
            return objective(double, scores, w, row[None], target[None])

        each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))
        out = np.empty((len(y), sum(w.size for w in weights.values())))
        for start in range(0, len(y), BLOCK):
            here = np.minimum(np.arange(start, start + BLOCK), len(y) - 1)  # the last row fills up the last block
            found = each(at, tensor(double, x[here]), outcome(double, y[here]))
            block = np.concatenate([plain(g).reshape(BLOCK, -1) for g in found.values()], axis=1)
            out[start : start + BLOCK] = block[: len(y) - start]
        return out


def predict(spec: ModelSpec, scores: Scores, weights: Weights, x: Floats) -> Floats:
    with exactly() as torch, torch.no_grad():
        return mean(spec.task, plain(scores(tensors(spec, weights), tensor(spec, x))).reshape(len(x), spec.outputs))


def objective(spec: ModelSpec, scores: Scores, weights: Mapping[str, Any], x: Any, y: Any) -> Any:
    """The losses of `linear`, as a tensor."""
    from torch.nn import functional as f

    score = scores(weights, x)
    if spec.task == "regression":
        loss = ((score[:, 0] - y) ** 2).mean() / 2
    elif spec.task == "binary":
        loss = f.binary_cross_entropy_with_logits(score[:, 0], y)
    else:
        loss = f.cross_entropy(score, y)
    if spec.l2:
        loss = loss + spec.l2 / 2 * sum((w * w).sum() for w in weights.values() if w.ndim > 1)
    return loss


def tensors(spec: ModelSpec, weights: Weights) -> dict[str, Any]:
    return {name: tensor(spec, w) for name, w in weights.items()}


def tensor(spec: ModelSpec, values: Floats) -> Any:
    import torch

    kind = np.float64 if spec.more.get("precision") == "double" else np.float32
    return torch.from_numpy(np.array(values, dtype=kind))


def outcome(spec: ModelSpec, y: Floats) -> Any:
    import torch

    return torch.from_numpy(np.array(y, dtype=np.int64)) if spec.task == "classes" else tensor(spec, y)


def plain(value: Any) -> Floats:
    return np.asarray(value.detach().numpy(), dtype=np.float64)


@contextmanager
def exactly() -> Iterator[Any]:
    """torch, by one thread and with deterministic kernels; what was set before comes back. Raises `StudyInvalid` where torch
    is not installed."""
    try:
        import torch
    except ImportError:
        raise StudyInvalid(
            "the study's model needs PyTorch", help="Install it with `pip install 'fivefold[torch]'`, or name another model."
        ) from None
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):  # a network that draws numbers leaves nothing behind
            torch.manual_seed(0)
            yield torch
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
