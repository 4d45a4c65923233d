"""Cyclic weight transfer: one site after the other, as written out; each turn needs the permission that it uses."""

from __future__ import annotations

import numpy as np

from fivefold.algorithms import cyclic
from fivefold.models.linear import sigmoid
from tests.algorithms import plain, real_data
from tests.algorithms.training_data import analysis, train, weights


def test_it_is_descent_at_one_site_after_the_other() -> None:
    frame, setting, tables = real_data.breast()
    found = weights(train("cyclic", setting, tables, rounds=12, local_epochs=3, learning_rate=0.4, evaluate_every=0))
    x = frame[["mean_radius", "mean_texture", "mean_smoothness", "mean_symmetry"]].to_numpy()
    x = np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(x))])
    y, w = frame.malignant.to_numpy(dtype=float), np.zeros(5)
    for turn in range(12):
        here = (frame.site == turn % 5).to_numpy()
        for _ in range(3):
            w -= 0.4 * x[here].T @ (sigmoid(x[here] @ w) - y[here]) / here.sum()
    np.testing.assert_allclose(found, w, atol=1e-5)


def test_each_turn_asks_for_the_permission_that_it_uses_and_only_one_site_answers_it() -> None:
    _, setting, tables = real_data.breast()
    log = plain.transcript(cyclic.METHOD, analysis("cyclic", rounds=5, evaluate_every=0), setting, tables)
    for turn, (question,) in enumerate(log.questions[1:]):
        assert question.needs == ("site_totals",)
        moved = [bool(np.any(plain.checked(question, t)["update"])) for t in tables]
        assert moved == [i == turn for i in range(5)]


def test_a_site_that_misses_its_turn_leaves_the_weights_as_they_are() -> None:
    _, setting, tables = real_data.breast()
    asked = analysis("cyclic", rounds=2, evaluate_every=0)
    found = plain.run(cyclic.METHOD, asked, setting, tables, {3: ["h1"]})
    alone = plain.run(cyclic.METHOD, analysis("cyclic", rounds=1, evaluate_every=0), setting, tables)
    np.testing.assert_array_equal(weights(found), weights(alone))
    assert found.dropped == ("h1",)
