"""A trained model as an ONNX graph, from the variables in their own units to the prediction.

The graph is written node by node for each built-in kind, so that the file holds arithmetic and nothing else: no code, no
pickle. Scaling and the indicators of categories stand in the graph, so that who uses it needs no word of Fivefold. Needs the
extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fivefold.models.model import ModelSpec, Weights

OPSET, IR = 17, 8
NETWORKS = ("linear", "logistic", "softmax", "mlp", "sklearn_sgd", "sklearn_mlp", "torch_mlp", "torch_cnn")
"""The kinds that have a graph: all but the user's own code."""


@dataclass(frozen=True)
class Columns:
    """How the model's columns come from a row of `variables`.

    `numbers` are (place among the variables, centre, scale), `levels` (place, index of the code that it indicates); each of
    `products` multiplies some of these, by their index in numbers and then levels, to a column of the model. `unit` are
    centre and scale of a numeric outcome.
    """

    variables: tuple[str, ...]
    numbers: tuple[tuple[int, float, float], ...]
    levels: tuple[tuple[int, int], ...]
    products: tuple[tuple[int, ...], ...]
    unit: tuple[float, float] = (0.0, 1.0)


@dataclass
class Graph:
    """Nodes and constants, in the order in which they are added."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node; the name of its only output."""
        from onnx import helper

        out = name or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [out], **attributes))
        return out

    def constant(self, values: Any, name: str = "") -> str:
        from onnx import numpy_helper

        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def onnx_of(spec: ModelSpec, weights: Weights, columns: Columns, about: Mapping[str, str]) -> bytes:
    """The bytes of the file. Input `variables` (rows, variables) float64: numbers in the dictionary's units, categories as the
    place of their code (from 0). Output `prediction` (rows, outputs) float64: a number, the probability of 1, or those of the
    classes. The same model gives the same bytes. Raises `ValueError` for a kind that has no graph.
    """
    from onnx import TensorProto, checker, helper

    if spec.kind not in NETWORKS:
        raise ValueError(f"a model of the kind {spec.kind} has no graph")
    graph = Graph()
    x = _columns(graph, columns, "variables")
    score = _network(graph, spec, weights, x)
    _predicted(graph, spec, columns, score)
    double = TensorProto.DOUBLE
    made = helper.make_graph(
        graph.nodes,
        "fivefold",
        [helper.make_tensor_value_info("variables", double, ["rows", len(columns.variables)])],
        [helper.make_tensor_value_info("prediction", double, ["rows", spec.outputs])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="fivefold", ir_version=IR)
    helper.set_model_props(model, {k: about[k] for k in sorted(about)})
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _columns(graph: Graph, columns: Columns, variables: str) -> str:
    """Scaled numbers beside indicators, and the products of these: shape (rows, features)."""
    parts = []
    if columns.numbers:
        place, centre, scale = (np.array(c) for c in zip(*columns.numbers, strict=True))
        taken = _gathered(graph, variables, place)
        parts.append(graph.add("Div", graph.add("Sub", taken, graph.constant(centre)), graph.constant(scale)))
    if columns.levels:
        place, level = (np.array(c) for c in zip(*columns.levels, strict=True))
        same = graph.add("Equal", _gathered(graph, variables, place), graph.constant(level.astype(np.float64)))
        parts.append(graph.add("Cast", same, to=11))
    atoms = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    longest = max(len(p) for p in columns.products)
    if longest > 1:  # shorter products are filled up with a column of ones
        one = len(columns.numbers) + len(columns.levels)
        atoms = graph.add("Pad", atoms, graph.constant(np.array([0, 0, 0, 1])), graph.constant(np.float64(1.0)))
        filled = [(*p, *[one] * (longest - len(p))) for p in columns.products]
    else:
        filled = list(columns.products)
    out = _gathered(graph, atoms, np.array([p[0] for p in filled]))
    for i in range(1, longest):
        out = graph.add("Mul", out, _gathered(graph, atoms, np.array([p[i] for p in filled])))
    return out


def _gathered(graph: Graph, source: str, places: Any) -> str:
    return graph.add("Gather", source, graph.constant(places.astype(np.int64)), axis=1)


def _network(graph: Graph, spec: ModelSpec, weights: Weights, x: str) -> str:
    """The scores, shape (rows, outputs), as float64."""
    if spec.kind in ("linear", "logistic", "softmax", "sklearn_sgd"):
        score = graph.add("MatMul", x, graph.constant(weights["coefficients"], "coefficients"))
        return graph.add("Add", score, graph.constant(weights["intercept"], "intercept")) if "intercept" in weights else score
    layers = len(spec.hidden) + 1
    if not spec.kind.startswith("torch"):
        return _dense(graph, {n: np.asarray(w, np.float64) for n, w in weights.items()}, x, layers)
    # Convolutions in float64 are not for every runtime; a network of double precision without them keeps it.
    double = spec.more.get("precision") == "double" and spec.kind == "torch_mlp"
    kind = np.float64 if double else np.float32
    own = {n: np.asarray(w, kind) for n, w in weights.items()}
    own |= {n: own[n].T for n in own if n.startswith("layer")}
    x = x if double else graph.add("Cast", x, to=1)
    if spec.kind == "torch_cnn":
        x = graph.add("Reshape", x, graph.constant(np.array([-1, *spec.more["image"]], np.int64)))
        for i in range(1, len(spec.more["channels"]) + 1):
            kernel, constant = (graph.constant(own[n], n) for n in (f"conv{i}", f"conv_bias{i}"))
            x = graph.add("Conv", x, kernel, constant, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
            x = graph.add("MaxPool", graph.add("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
        x = graph.add("Flatten", x, axis=1)
    score = _dense(graph, own, x, layers)
    return score if double else graph.add("Cast", score, to=11)


def _dense(graph: Graph, weights: Mapping[str, Any], x: str, layers: int) -> str:
    """ReLU layers, each weight of shape (in, out)."""
    for i in range(1, layers + 1):
        x = graph.add("MatMul", x, graph.constant(weights[f"layer{i}"], f"layer{i}"))
        x = graph.add("Add", x, graph.constant(weights[f"bias{i}"], f"bias{i}"))
        x = graph.add("Relu", x) if i < layers else x
    return x


def _predicted(graph: Graph, spec: ModelSpec, columns: Columns, score: str) -> None:
    """From scores to `prediction`."""
    if spec.task == "regression":
        middle, unit = columns.unit
        score = graph.add("Mul", score, graph.constant(np.float64(unit)))
        graph.add("Add", score, graph.constant(np.float64(middle)), name="prediction")
    elif spec.task == "binary":
        graph.add("Sigmoid", score, name="prediction")
    elif spec.kind == "sklearn_sgd":  # each class against the rest
        each = graph.add("Sigmoid", score)
        total = graph.add("ReduceSum", each, graph.constant(np.array([1], np.int64)), keepdims=1)
        floor = graph.constant(np.array([[np.finfo(np.float64).tiny]]))
        graph.add("Div", each, graph.add("Max", total, floor), name="prediction")
    else:
        graph.add("Softmax", score, axis=-1, name="prediction")
