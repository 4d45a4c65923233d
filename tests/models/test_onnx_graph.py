"""A model as an ONNX graph predicts what the model itself predicts, from the variables in their own units."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

from fivefold.algorithms.design import matrix
from fivefold.algorithms.method import Setting
from fivefold.algorithms.training_loop import Frame, framed
from fivefold.algorithms.training_rows import problem
from fivefold.algorithms.training_spec import TrainingSpec
from fivefold.coordinator.model_export import columns_of
from fivefold.models.model import ModelSpec, named
from fivefold.models.onnx_graph import NETWORKS, Columns, onnx_of
from fivefold.plugins import method
from fivefold.study.table import Table
from tests.algorithms import real_data
from tests.algorithms import training_data as td

OWN = {"mlp": {"hidden": [5, 4]}, "torch_cnn": {"image": [1, 4, 4], "channels": [3, 2]}, "torch_mlp": {"hidden": [6]}}
TASKS = {"linear": ["y"], "logistic": ["ill"], "softmax": ["stage"]}
PAIRS = [
    (kind, task, precision)
    for kind in NETWORKS
    for task in TASKS.get(kind, ["y", "ill", "stage"])
    for precision in (("single", "double") if kind == "torch_mlp" else ("single",) if kind == "torch_cnn" else ("",))
]
FORMULA = "a * b * grade + smoker"  # 16 columns: numbers, indicators, and products of two and three


def rows(n: int = 60) -> tuple[Setting, Table]:
    r = np.random.default_rng(8)
    frame = pd.DataFrame({"a": r.uniform(20, 80, n), "b": r.uniform(0, 6, n), "grade": r.integers(0, 4, n)}).astype(float)
    frame = frame.assign(smoker=r.integers(0, 2, n), y=10 + frame.a / 5, ill=r.integers(0, 2, n), stage=r.integers(0, 3, n))
    variables = [
        real_data.number("a", 20, 80), real_data.number("b", 0, 6), real_data.category("grade", "low", "mid", "high", "top"),
        real_data.boolean("smoker"), real_data.number("y", 0, 40), real_data.boolean("ill"),
        real_data.category("stage", "one", "two", "three"),
    ]  # fmt: skip
    here = real_data.setting(variables, ["all"])
    return here, real_data.tables(frame, here, np.zeros(n))[0]


@pytest.mark.parametrize(("kind", "outcome", "precision"), PAIRS)
def test_the_graph_predicts_what_the_model_predicts(kind: str, outcome: str, precision: str) -> None:
    here, table = rows()
    model = {"kind": kind, **OWN.get(kind, {}), **({"precision": precision} if precision else {})}
    formula = f"{outcome} ~ {FORMULA}"
    spec = method("fedavg").parse(td.analysis("fedavg", formula, model=model, scaling="range"), here)
    frame = framed(spec, None, 0, 0)
    model_, part, _ = problem(table, frame.fit)
    drawn = np.random.default_rng(3).normal(0, 0.4, spec.width)
    weights = named(drawn if precision == "double" else drawn.astype(np.float32).astype(float), model_.shapes)
    scaled = dict(zip(spec.design.numbers, zip(frame.constants.centre, frame.constants.scale, strict=True), strict=True))
    columns = columns_of(spec, {**scaled, "y": frame.unit})

    data = onnx_of(spec.model, weights, columns, {"study": "x"})
    assert data == onnx_of(spec.model, weights, columns, {"study": "x"})
    raw = np.column_stack([table[v] for v in columns.variables])
    (found,) = onnxruntime.InferenceSession(data).run(None, {"variables": raw})
    expected = model_.predict(weights, x_of(spec, frame, table)) * frame.unit[1] + frame.unit[0]
    assert len(part) == len(table) == len(found)
    assert found.shape == expected.shape
    assert len(np.unique(np.round(expected, 4))) > 20
    np.testing.assert_allclose(found, expected, atol=1e-6 * max(1.0, frame.unit[1]))


def x_of(spec: TrainingSpec, frame: Frame, table: Table) -> np.ndarray:
    """The model's columns of a table's rows, in the table's order."""
    return matrix(spec.design, table, frame.constants)[:, [bool(c.variables) for c in spec.design.columns]]


def test_the_file_holds_arithmetic_alone() -> None:
    spec = ModelSpec("logistic", "binary", 2, 1)
    weights = {"coefficients": np.array([[1.0], [2.0]]), "intercept": np.array([0.5])}
    columns = Columns(("u", "v"), ((0, 1.0, 2.0), (1, 0.0, 1.0)), (), ((0,), (1,)))
    made = onnx.load_from_string(onnx_of(spec, weights, columns, {"run": "r"}))
    assert {o.domain for o in made.opset_import} == {""}
    assert [n.op_type for n in made.graph.node] == ["Gather", "Sub", "Div", "Gather", "MatMul", "Add", "Sigmoid"]
    assert not made.functions
    assert {p.key: p.value for p in made.metadata_props} == {"run": "r"}


def test_code_of_the_user_s_own_has_no_graph() -> None:
    with pytest.raises(ValueError, match="has no graph"):
        onnx_of(ModelSpec("code", "binary", 2, 1), {}, Columns((), (), (), ()), {})
