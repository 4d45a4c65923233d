"""scikit-learn's SGD and multilayer perceptron, by `partial_fit`: weights in and out as `coef_`, `intercept_`, `coefs_`.

An estimator is made anew for each step and forgotten, so that it holds no state but the weights. scikit-learn is imported only
when a study names one of these kinds; its thread pools are held to one thread, so that results do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.errors import StudyInvalid
from fivefold.models.linear import Linear, scores, sigmoid
from fivefold.models.model import Floats, Model, ModelSpec, Weights
from fivefold.models.perceptron import Perceptron


def build(spec: ModelSpec) -> Model:
    """Raises `StudyInvalid` where scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise StudyInvalid(
            f"the model {spec.kind} needs scikit-learn",
            help="Install it with `pip install scikit-learn`, or name another model.",
        ) from None
    return Sgd(spec) if spec.kind == "sklearn_sgd" else Mlp(spec)


@dataclass(frozen=True)
class Sgd:
    """SGDRegressor, or SGDClassifier with the log loss (several classes: one against the rest). A step is one pass over its
    rows, one row after the other, at a constant rate."""

    spec: ModelSpec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return Linear(self.spec).shapes

    @property
    def head(self) -> tuple[str, ...]:
        return Linear(self.spec).head

    def initial(self, rng: np.random.Generator) -> Weights:
        return Linear(self.spec).initial(rng)

    def loss_and_gradient(self, weights: Weights, x: Floats, y: Floats) -> tuple[float, Weights]:
        """Of all rows at once. With several classes: the sum of the binary losses of each against the rest."""
        if self.spec.task != "classes":
            return Linear(self.spec).loss_and_gradient(weights, x, y)
        n, w, score = len(y), weights["coefficients"], scores(weights, x)
        is_class = (y[:, None] == np.arange(self.spec.outputs)).astype(np.float64)
        loss = float((np.logaddexp(0.0, score) - is_class * score).sum()) / n + self.spec.l2 / 2 * float((w * w).sum())
        residual = sigmoid(score) - is_class
        gradient = {"coefficients": np.einsum("ij,ik->jk", x, residual) / n + self.spec.l2 * w}
        return loss, gradient | ({"intercept": residual.sum(axis=0) / n} if "intercept" in weights else {})

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        from sklearn.linear_model import SGDClassifier, SGDRegressor

        options: dict[str, Any] = {
            "penalty": "l2", "alpha": self.spec.l2, "learning_rate": "constant", "eta0": rate, "shuffle": False,
            "fit_intercept": self.spec.intercept,
        }  # fmt: skip
        x, constant = np.ascontiguousarray(x, dtype=np.float64), weights.get("intercept", np.zeros(self.spec.outputs))
        with _one_thread():
            if self.spec.task == "regression":
                one: Any = SGDRegressor(loss="squared_error", **options)
                one.partial_fit(x[:1], y[:1])
                one.coef_, one.intercept_ = weights["coefficients"][:, 0].copy(), constant.copy()
                one.partial_fit(x, y)
            else:
                one = SGDClassifier(loss="log_loss", **options)
                kinds = np.arange(max(self.spec.outputs, 2))
                one.partial_fit(x[:1], y[:1].astype(np.int64), classes=kinds)
                one.coef_, one.intercept_ = np.ascontiguousarray(weights["coefficients"].T), constant.copy()
                one.partial_fit(x, y.astype(np.int64))
        after = {"coefficients": np.array(one.coef_).reshape(self.spec.outputs, -1).T.copy()}
        return after | ({"intercept": np.array(one.intercept_).reshape(-1)} if "intercept" in weights else {})

    def predict(self, weights: Weights, x: Floats) -> Floats:
        """As `predict` and `predict_proba`: with several classes, each one's probability against the rest, scaled to add up."""
        if self.spec.task != "classes":
            return Linear(self.spec).predict(weights, x)
        each = sigmoid(scores(weights, x))
        return np.asarray(each / np.maximum(each.sum(axis=1, keepdims=True), np.finfo(float).tiny))


@dataclass(frozen=True)
class Mlp(Perceptron):
    """MLPRegressor or MLPClassifier, ReLU, plain stochastic gradients: a step is one `partial_fit` of one batch."""

    def descend(self, weights: Weights, x: Floats, y: Floats, rate: float) -> Weights:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        options: dict[str, Any] = {
            "hidden_layer_sizes": self.spec.hidden, "solver": "sgd", "learning_rate_init": rate, "momentum": 0.0,
            "nesterovs_momentum": False, "alpha": self.spec.l2 * len(y), "batch_size": len(y), "shuffle": False,
            "random_state": 0,
        }  # fmt: skip
        with _one_thread():
            if self.spec.task == "regression":
                one: Any = MLPRegressor(**options)
                one.partial_fit(x, y)
            else:
                one, y = MLPClassifier(**options), y.astype(np.int64)
                one.partial_fit(x, y, classes=np.arange(max(self.spec.outputs, 2)))
            one.coefs_ = [weights[f"layer{i}"].copy() for i in range(1, self.layers + 1)]
            one.intercepts_ = [weights[f"bias{i}"].copy() for i in range(1, self.layers + 1)]
            del one._optimizer  # made anew over these weights
            one.partial_fit(x, y)
        out = {}
        for i in range(1, self.layers + 1):
            out[f"layer{i}"], out[f"bias{i}"] = np.array(one.coefs_[i - 1]), np.array(one.intercepts_[i - 1])
        return out


def _one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)
