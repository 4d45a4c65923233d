"""Models against finite differences, scikit-learn's own estimators, and the twin that trains many clients at once."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fivefold.algorithms.training_rows import Part, Pull, descend
from fivefold.algorithms.training_vectorised import local_updates
from fivefold.models.model import KINDS, Model, ModelSpec, build, flat, named, size

ELSEWHERE = {"code": "test_confinement.py"}
"""Kinds whose gradients another file compares."""
CASES = [
    ModelSpec("linear", "regression", 4, 1, True, (), 0.1),
    ModelSpec("linear", "regression", 4, 1, False),
    ModelSpec("logistic", "binary", 4, 1, True, (), 0.05),
    ModelSpec("softmax", "classes", 4, 3, True, (), 0.1),
    ModelSpec("mlp", "regression", 4, 1, True, (5,), 0.1),
    ModelSpec("mlp", "binary", 4, 1, True, (5, 3), 0.0),
    ModelSpec("mlp", "classes", 4, 3, True, (6,), 0.2),
    ModelSpec("sklearn_sgd", "regression", 4, 1),
    ModelSpec("sklearn_sgd", "binary", 4, 1),
    ModelSpec("sklearn_sgd", "classes", 4, 3),
    ModelSpec("sklearn_mlp", "regression", 4, 1, True, (5,), 0.1),
    ModelSpec("sklearn_mlp", "binary", 4, 1, True, (5, 3)),
    ModelSpec("sklearn_mlp", "classes", 4, 3, True, (6,), 0.2),
    ModelSpec("torch_mlp", "regression", 4, 1, True, (5,), 0.1, {"precision": "double"}),
    ModelSpec("torch_mlp", "binary", 4, 1, True, (5, 3), 0.0, {"precision": "double"}),
    ModelSpec("torch_mlp", "classes", 4, 3, True, (6,), 0.2, {"precision": "double"}),
    *(
        ModelSpec(
            "torch_cnn", task, 16, outputs, True, (), 0.1, {"precision": "double", "image": (1, 4, 4), "channels": (3, 2)}
        )
        for task, outputs in (("regression", 1), ("binary", 1), ("classes", 3))
    ),
]


def name(spec: ModelSpec) -> str:
    return f"{spec.kind}-{spec.task}"


def rows(spec: ModelSpec, n: int = 40, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, spec.features))
    if spec.task == "regression":
        return x, x @ rng.normal(size=spec.features) + rng.normal(size=n)
    return x, rng.integers(0, 2 if spec.task == "binary" else spec.outputs, n).astype(float)


def somewhere(model: Model, seed: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=shape) * 0.5 for n, shape in model.shapes.items()}


def test_every_kind_and_task_has_a_case() -> None:
    assert {(kind, task) for kind, (_, tasks) in KINDS.items() for task in tasks if kind not in ELSEWHERE} <= {
        (c.kind, c.task) for c in CASES
    }


@pytest.mark.parametrize("spec", CASES, ids=name)
def test_the_gradient_is_that_of_the_loss(spec: ModelSpec) -> None:
    model = build(spec)
    x, y = rows(spec)
    at = somewhere(model)
    _, gradient = model.loss_and_gradient(at, x, y)
    assert {n: g.shape for n, g in gradient.items()} == dict(model.shapes)
    there, step = flat(at), 1e-6
    for i in np.random.default_rng(3).choice(size(model), 12):
        ends = []
        for sign in (1, -1):
            moved = there.copy()
            moved[i] += sign * step
            ends.append(model.loss_and_gradient(named(moved, model.shapes), x, y)[0])
        assert flat(gradient)[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("spec", [c for c in CASES if c.kind != "sklearn_sgd"], ids=name)
def test_a_step_goes_against_the_gradient_and_changes_nothing_in_place(spec: ModelSpec) -> None:
    model = build(spec)
    x, y = rows(spec)
    at = somewhere(model)
    before = flat(at).copy()
    after = flat(model.descend(at, x, y, 0.1))
    np.testing.assert_array_equal(flat(at), before)
    expected = before - 0.1 * flat(model.loss_and_gradient(at, x, y)[1])
    np.testing.assert_allclose(after, expected, atol=1e-12)


@pytest.mark.parametrize("task", ["regression", "binary", "classes"])
def test_scikit_learn_s_sgd_is_one_row_after_the_other(task: str) -> None:
    spec = next(c for c in CASES if c.kind == "sklearn_sgd" and c.task == task)
    model = build(spec)
    x, y = rows(spec)
    at = somewhere(model)
    by_hand = {n: w.copy() for n, w in at.items()}
    for i in range(len(y)):
        _, gradient = model.loss_and_gradient(by_hand, x[i : i + 1], y[i : i + 1])
        by_hand = {n: w - 0.05 * gradient[n] for n, w in by_hand.items()}
    np.testing.assert_allclose(flat(model.descend(at, x, y, 0.05)), flat(by_hand), atol=1e-10)


@pytest.mark.parametrize("kind", ["sklearn_sgd", "sklearn_mlp"])
def test_predictions_are_scikit_learn_s_own(kind: str) -> None:
    from sklearn.linear_model import SGDClassifier
    from sklearn.neural_network import MLPClassifier

    spec = next(c for c in CASES if c.kind == kind and c.task == "classes")
    model = build(spec)
    x, y = rows(spec)
    if kind == "sklearn_sgd":
        theirs = SGDClassifier(loss="log_loss", random_state=0).fit(x, y)
        at = {"coefficients": theirs.coef_.T, "intercept": theirs.intercept_}
    else:
        theirs = MLPClassifier((6,), max_iter=5000, random_state=0, tol=1e-3).fit(x, y)
        at = {
            "layer1": theirs.coefs_[0],
            "bias1": theirs.intercepts_[0],
            "layer2": theirs.coefs_[1],
            "bias2": theirs.intercepts_[1],
        }
    np.testing.assert_allclose(model.predict(at, x), theirs.predict_proba(x), atol=1e-12)


@pytest.mark.parametrize("spec", [c for c in CASES if c.kind in ("linear", "logistic", "softmax")], ids=name)
@pytest.mark.parametrize("epochs", [1, 4])
def test_many_clients_at_once_are_trained_as_each_alone(spec: ModelSpec, epochs: int) -> None:
    clients, most = 23, 9
    rng = np.random.default_rng(4)
    model = build(spec)
    start = flat(somewhere(model))
    held = np.r_[0, rng.integers(1, most + 1, clients - 1)]
    x, y = np.zeros((clients, most, spec.features)), np.zeros((clients, most))
    for i, n in enumerate(held):
        x[i, :n], y[i, :n] = rows(spec, n, seed=100 + i)
        x[i, n:] = 7.0  # what fills up must not count
    together = local_updates(spec, start, x, y, np.arange(most) < held[:, None], rate=0.2, epochs=epochs)
    for i, n in enumerate(held):
        part = Part(x[i, :n], y[i, :n], np.arange(n))
        after, _ = descend(
            model, named(start, model.shapes), part, epochs=epochs, batch_size=0, rate=0.2,
            rng=np.random.default_rng(0), pull=Pull(),
        )  # fmt: skip
        np.testing.assert_allclose(together[i], flat(after) - start, atol=1e-12)


def test_single_precision_stays_single() -> None:
    spec = ModelSpec("softmax", "classes", 4, 3)
    x, y = rows(spec, 8)
    found = local_updates(spec, np.zeros(15), x[None].astype(np.float32), y[None], np.ones((1, 8), bool), rate=0.1)
    assert found.dtype == np.float32


def test_scikit_learn_is_imported_by_its_own_models_alone() -> None:
    said = subprocess.run(
        [
            sys.executable, "-c",
            "import sys\nfrom fivefold.models.model import *\nbuild(ModelSpec('mlp', 'binary', 2, 1, True, (3,)))\n"
            "assert 'sklearn' not in sys.modules\nassert 'scipy' not in sys.modules",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
