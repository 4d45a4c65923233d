"""LoRA: a network that stands still, with small adapters beside its layers; only the adapters are trained, sent and kept.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen. LoRA: low-rank adaptation of large language models. ICLR 2022, section 4.1:
a layer's weights W become W + (alpha / rank)·B·A, with A (rank, in) drawn and B (out, rank) zero at the start, so that training
begins at the base itself. A convolution's kernel counts as (out, in·3·3).

    model: {kind: torch_mlp, hidden: [32], lora: {base: base.safetensors, rank: 4, alpha: 8, layers: [layer1, layer2]}}

The base is public. Freezing the study puts the SHA-256 digest of the file in its name's place; each site is given the file
(`SITE/models/`), and what has another digest is not looked at. The side without rows needs no base: it adds up adapters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.errors import SourceNotFound
from fivefold.models import safetensors
from fivefold.models import torch as network
from fivefold.models.model import Floats, ModelSpec, Weights

KEYS = ("base", "rank", "alpha", "layers")
EXAMPLE = "write `lora: {base: base.safetensors, rank: 4, alpha: 8}`"
_held: dict[str, Mapping[str, Floats]] = {}


# ---- the base ---------------------------------------------------------------------------------------------------------
def keep(data: bytes) -> str:
    """Hold the base weights of a safetensors file for this process; its SHA-256 (hex). Raises `safetensors.Malformed`."""
    own = hashlib.sha256(data).hexdigest()
    if own not in _held:
        arrays = {name: np.array(a, dtype=np.float64) for name, a in safetensors.load(data).items()}
        for array in arrays.values():
            array.flags.writeable = False
        _held[own] = arrays
    return own


def bring(folder: Path, digests: Iterable[str]) -> None:
    """Hold the bases of these digests from the folder's files. Raises `SourceNotFound` for one that is not there, also where
    another site in the same process has it: a rehearsal tells what each site lacks."""
    for wanted in digests:
        found = (p.read_bytes() for p in sorted(folder.glob("*.safetensors")) if p.is_file())
        data = next((d for d in found if hashlib.sha256(d).hexdigest() == wanted), None)
        if data is None:
            raise missing(wanted)
        try:
            keep(data)
        except safetensors.Malformed as error:
            raise SourceNotFound(f"the base model {wanted[:16]}… cannot be read: {error}", rule="base_weights") from error


def missing(digest: str) -> SourceNotFound:
    return SourceNotFound(
        f"the base model with the SHA-256 {digest[:16]}… is not here", rule="base_weights",
        help="Ask the study's lead for the file, and put it into the folder `models` of the site.",
    )  # fmt: skip


def base(spec: ModelSpec) -> Mapping[str, Floats]:
    """The base weights of a model, read-only. Raises `SourceNotFound` where they were not brought or do not fit."""
    digest = spec.more["lora"]["base"]
    if digest not in _held:
        raise missing(digest)
    found, shapes = _held[digest], network.Torch(spec).shapes
    if {n: a.shape for n, a in found.items()} != dict(shapes):
        raise SourceNotFound("the base model has other layers than the study's model", rule="base_weights")
    return found


# ---- the adapters -----------------------------------------------------------------------------------------------------
def options(given: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The key `lora` of a model, checked. Raises `ValueError` with a sentence."""
    if not isinstance(given, Mapping) or not set(given) <= set(KEYS):
        raise ValueError(f"`lora` is {given!r}; {EXAMPLE}")
    digest, rank = given.get("base"), given.get("rank", 4)
    alpha, wide = given.get("alpha", 2 * rank if type(rank) is int else 8), [n for n, s in shapes.items() if len(s) > 1]
    if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"the `base` of `lora` is {digest!r}, which is no file beside the study and no digest; {EXAMPLE}")
    if type(rank) is not int or not 1 <= rank <= 1024:
        raise ValueError(f"the `rank` of `lora` is {rank!r}; write a whole number from 1 to 1024")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha <= 1e4:
        raise ValueError(f"the `alpha` of `lora` is {alpha!r}; write a number above 0")
    layers = given.get("layers", wide)
    if not isinstance(layers, (list, tuple)) or not layers or not set(layers) <= set(wide):
        raise ValueError(f"the `layers` of `lora` are {layers!r}; write some of: {', '.join(wide)}")
    return {"base": digest, "rank": rank, "alpha": float(alpha), "layers": tuple(n for n in wide if n in layers)}


@dataclass(frozen=True)
class Lora:
    """A model whose weights are the adapters `LAYER.A` (rank, in) and `LAYER.B` (out, rank)."""

    spec: ModelSpec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        whole, rank = network.Torch(self.spec).shapes, self.spec.more["lora"]["rank"]
        out: dict[str, tuple[int, ...]] = {}
        for name in self.spec.more["lora"]["layers"]:
            out[f"{name}.A"], out[f"{name}.B"] = (rank, math.prod(whole[name][1:])), (whole[name][0], rank)
        return out

    @property
    def head(self) -> tuple[str, ...]:
        last = self.spec.more["lora"]["layers"][-1]
        return (f"{last}.A", f"{last}.B")

    def initial(self, rng: np.random.Generator) -> Weights:
        """A as the networks begin, B zero: the model is its base."""
        drawn = network.glorot(self.shapes, rng)
        return {name: w if name.endswith(".A") else np.zeros_like(w) for name, w in drawn.items()}

    def scores(self, weights: Mapping[str, Any], x: Any) -> Any:
        """The base network with B·A added to its layers: tensors in, tensors out."""
        whole = network.tensors(self.spec, base(self.spec))
        factor = _factor(self.spec)
        for name in self.spec.more["lora"]["layers"]:
            w = whole[name]
            whole[name] = w + factor * (weights[f"{name}.B"] @ weights[f"{name}.A"]).reshape(w.shape)
        return network.Torch(self.spec).scores(whole, x)

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        return network.loss_and_gradient(self.spec, self.scores, weights, x, y)

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        _, gradient = self.loss_and_gradient(weights, x, y)
        return {name: w - rate * gradient[name] for name, w in weights.items()}

    def row_gradients(self, weights: Weights, x: Floats, y: Floats) -> Floats:
        return network.row_gradients(self.spec, self.scores, weights, x, y)

    def predict(self, weights: Weights, x: Floats) -> Floats:
        return network.predict(self.spec, self.scores, weights, x)


def merged(spec: ModelSpec, weights: Weights) -> tuple[ModelSpec, dict[str, Floats]]:
    """The network without adapters that predicts the same: its spec, and W + (alpha / rank)·B·A by layer (float64)."""
    out = {name: np.array(w) for name, w in base(spec).items()}
    for name in spec.more["lora"]["layers"]:
        out[name] += _factor(spec) * (weights[f"{name}.B"] @ weights[f"{name}.A"]).reshape(out[name].shape)
    return replace(spec, more={k: v for k, v in spec.more.items() if k != "lora"}), out


def _factor(spec: ModelSpec) -> float:
    return float(spec.more["lora"]["alpha"]) / int(spec.more["lora"]["rank"])
