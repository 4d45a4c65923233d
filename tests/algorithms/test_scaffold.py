"""SCAFFOLD against its algorithm written out; personalised layers: what stays, what leaves, and that it helps unlike sites."""

from __future__ import annotations

import numpy as np
import pytest

from fivefold.algorithms import personalised, scaffold
from fivefold.errors import StudyInvalid
from fivefold.models.linear import sigmoid
from fivefold.protocol.questions import STATE
from fivefold.study.table import Table
from tests.algorithms import plain, real_data
from tests.algorithms.training_data import BREAST, analysis, train, weights


def scaled(frame, names):
    x = frame[names].to_numpy()
    return np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(frame))])


def algorithm_1(x, y, site, rounds, steps, rate):
    """Option II, full local batches, sites weighted by their rows; Karimireddy et al. 2020."""
    sites = np.unique(site)
    w, c = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    own = {s: np.zeros_like(w) for s in sites}
    for _ in range(rounds):
        moved, changed = np.zeros_like(w), np.zeros_like(w)
        for s in sites:
            xs, ys = x[site == s], y[site == s]
            share, v = len(ys) / len(y), w.copy()
            for _ in range(steps):
                v -= rate * (xs.T @ (sigmoid(xs @ v) - ys) / len(ys) - own[s] + c)
            new = own[s] - c + (w - v) / (steps * rate)
            moved += share * (v - w)
            changed += share * (new - own[s])
            own[s] = new
        w, c = w + moved, c + changed
    return w


NAMES = ["mean_radius", "mean_texture", "mean_smoothness", "mean_symmetry"]


def test_it_is_algorithm_1() -> None:
    frame, setting, tables = real_data.breast()
    options = {"rounds": 8, "local_epochs": 5, "learning_rate": 0.5, "evaluate_every": 0}
    found = weights(train("scaffold", setting, tables, **options))
    y = frame.malignant.to_numpy(dtype=float)
    np.testing.assert_allclose(found, algorithm_1(scaled(frame, NAMES), y, frame.site.to_numpy(), 8, 5, 0.5), atol=2e-5)
    assert np.abs(found - weights(train("fedavg", setting, tables, **options))).max() > 1e-3


def unlike() -> tuple:
    """Breast cancer with the sites cut along the outcome and size, so that their rows pull in different directions."""
    frame, setting, _ = real_data.breast()
    order = np.argsort(np.argsort(frame.mean_radius + 3 * frame.malignant))
    site = order * 5 // len(frame)
    return frame, setting, real_data.tables(frame, setting, site)


def test_it_ends_where_pooled_training_ends_and_fedavg_does_not() -> None:
    """The point of SCAFFOLD: with many local steps at unlike sites, FedAvg's fixed point is another."""
    frame, setting, tables = unlike()
    x, y = scaled(frame, NAMES), frame.malignant.to_numpy(dtype=float)
    w = np.zeros(5)
    for _ in range(20_000):
        w -= 0.5 * (x.T @ (sigmoid(x @ w) - y) / len(y) + np.r_[np.full(4, 0.05), 0.0] * w)
    options = {
        "model": {"kind": "logistic", "l2": 0.05}, "rounds": 120, "local_epochs": 20, "learning_rate": 0.2, "evaluate_every": 0,
    }  # fmt: skip
    away = {m: np.abs(weights(train(m, setting, tables, **options)) - w).max() for m in ("scaffold", "fedavg")}
    assert away["scaffold"] < 1e-3
    assert away["fedavg"] > 0.1


def test_its_variate_stays_and_its_change_leaves() -> None:
    _, setting, tables = real_data.breast()
    log = plain.transcript(scaffold.METHOD, analysis("scaffold", rounds=2, evaluate_every=0), setting, tables)
    (question,) = log.questions[1]
    said = question.step(tables[0], **question.arguments)
    assert set(said) - {STATE} == {"update", "control", "weight"}
    np.testing.assert_allclose(said[STATE]["control"] * said["weight"], said["control"])
    assert question.step.keeps_state


# ---- personalised layers --------------------------------------------------------------------------------------------
NET = {"model": {"kind": "mlp", "hidden": [6]}, "batch_size": 32, "local_epochs": 2, "learning_rate": 0.3}


@pytest.mark.parametrize("head_epochs", [0, 2])
def test_the_head_never_leaves(head_epochs: int) -> None:
    _, setting, tables = real_data.breast()
    asked = analysis("personalised", rounds=3, head_epochs=head_epochs, **NET)
    log = plain.transcript(personalised.METHOD, asked, setting, tables)
    assert log.result is not None
    assert set(log.result.tables["weights"].column("layer")) == {"layer1", "bias1"}
    for (question,) in log.questions[1:]:
        for field in question.fields:
            assert field.name in (
                "persons",
                "rows",
                "loss",
                "right",
                "outcome",
                "scores_with",
                "scores_without",
                "update",
                "weight",
            )
            if field.name == "update":
                assert field.shape == (4 * 6 + 6,)
    assert any("stays at each site" in note for note in log.result.notes)


def test_each_site_keeps_a_head_of_its_own() -> None:
    _, setting, tables = real_data.breast()
    log = plain.transcript(personalised.METHOD, analysis("personalised", rounds=2, **NET), setting, tables)
    question = next(q for (q,) in log.questions[1:] if any(f.name == "update" for f in q.fields))
    heads = [question.step(t, **question.arguments)[STATE]["head"] for t in tables]
    assert all(h.shape == (7,) for h in heads)
    assert np.abs(heads[0] - heads[1]).max() > 1e-3


def test_a_site_with_opposite_labels_is_served_by_its_own_head() -> None:
    """Two of five sites code the outcome the other way round: one shared model cannot serve both kinds, heads can."""
    _, setting, tables = real_data.breast()
    turned = [
        Table(t.site, t.dictionary, {**t.columns, "malignant": 1 - t["malignant"]}, t.person) if i in (1, 2) else t
        for i, t in enumerate(tables)
    ]
    options = {**NET, "rounds": 15, "evaluate_every": 15, "holdout": 0.3}
    one = train("fedavg", setting, turned, **options)
    own = train("personalised", setting, turned, **options)
    assert own.facts["accuracy"] > 0.85
    assert own.facts["accuracy"] > one.facts["accuracy"] + 0.1


@pytest.mark.parametrize("personal", [[], ["layer1", "bias1", "layer2", "bias2"], ["coefficients"], "layer2"])
def test_some_and_not_all_layers_are_personal(personal) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid) as caught:
        personalised.parse(analysis("personalised", BREAST, **NET, personal=personal), setting)
    assert "layer1" in caught.value.hint
