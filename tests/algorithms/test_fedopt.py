"""Server optimisers against the equations of Reddi et al., written out one weight at a time; the proximal pull of FedProx."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fivefold.algorithms import fedopt, fedprox
from fivefold.errors import StudyInvalid
from tests.algorithms import plain, real_data
from tests.algorithms.training_data import analysis, train, weights


def by_hand(optimiser: str, changes: np.ndarray, rate: float, beta1: float, beta2: float, tau: float) -> float:
    """Algorithm 2 of the paper for one weight from 0."""
    x, m, v = 0.0, 0.0, tau * tau
    for d in changes:
        if optimiser == "momentum":
            m = beta1 * m + d
            x += rate * m
            continue
        m = beta1 * m + (1 - beta1) * d
        if optimiser == "adagrad":
            v = v + d * d
        elif optimiser == "yogi":
            v = v - (1 - beta2) * d * d * math.copysign(1.0, v - d * d)
        else:
            v = beta2 * v + (1 - beta2) * d * d
        x += rate * m / (math.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("optimiser", fedopt.OPTIMISERS)
def test_the_server_follows_the_paper(optimiser: str) -> None:
    _, setting, _ = real_data.breast()
    spec = fedopt.parse(analysis("fedopt", optimiser=optimiser, server_rate=0.3, beta1=0.8, beta2=0.95, tau=0.01), setting)
    changes = np.random.default_rng(1).normal(size=(9, 3)) * 0.1
    state = {"weights": np.zeros(3), "first": np.zeros(3), "second": np.full(3, 0.01**2)}
    for change in changes:
        state = dict(fedopt.step(spec, state, change))
    expected = [by_hand(optimiser, changes[:, i], 0.3, 0.8, 0.95, 0.01) for i in range(3)]
    np.testing.assert_allclose(state["weights"], expected, rtol=1e-12)


def test_it_begins_as_the_paper_says() -> None:
    """One round through the question: the first step of Adam moves each weight by rate·(1 - beta1)·d / (sqrt(v) + tau)."""
    _, setting, tables = real_data.breast()
    options = {"rounds": 1, "evaluate_every": 0, "learning_rate": 0.5, "update_bound": 1.0}
    d = weights(train("fedavg", setting, tables, **options))
    found = weights(train("fedopt", setting, tables, **options, optimiser="adam", server_rate=0.2, tau=0.01))
    expected = [by_hand("adam", np.array([c]), 0.2, 0.9, 0.99, 0.01) for c in d]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("optimiser", fedopt.OPTIMISERS)
def test_every_optimiser_learns(optimiser: str) -> None:
    _, setting, tables = real_data.breast()
    found = train("fedopt", setting, tables, optimiser=optimiser, rounds=25, local_epochs=2, batch_size=32, holdout=0.3)
    assert found.facts["accuracy"] > 0.88
    assert found.facts["auc"] > 0.93


def test_the_server_sees_nothing_but_the_mean() -> None:
    """Two consortia whose updates add up to the same train the same model: all rows at each of two sites, or one with twice."""
    _, setting, tables = real_data.breast()
    log = plain.transcript(fedopt.METHOD, analysis("fedopt", rounds=3, evaluate_every=0), setting, tables)
    for (question,) in log.questions[1:]:
        assert {f.name for f in question.fields} == {"update", "weight"}
        assert all(f.kind == "update" for f in question.fields)


def test_without_a_pull_fedprox_is_fedavg_and_with_one_it_stays_nearer() -> None:
    _, setting, tables = real_data.breast()
    options = {"rounds": 2, "local_epochs": 20, "batch_size": 16, "learning_rate": 0.3, "evaluate_every": 0}
    plainly = weights(train("fedavg", setting, tables, **options))
    np.testing.assert_array_equal(weights(train("fedprox", setting, tables, **options, mu=0.0)), plainly)
    sizes = [np.linalg.norm(weights(train("fedprox", setting, tables, **options, mu=mu))) for mu in (0.1, 1.0, 3.0)]
    assert np.linalg.norm(plainly) > sizes[0] > sizes[1] > sizes[2] > 0


def test_fedprox_solves_the_proximal_problem() -> None:
    """With enough full-batch steps a site's answer is the minimum of F(w) + mu/2·|w|²: a ridge regression with penalty mu·n."""
    frame, setting, tables = real_data.diabetes()
    from tests.algorithms.training_data import one_site

    alone, table = one_site(tables, setting)
    found = train(
        "fedprox", alone, table, "target ~ bmi + bp", mu=0.7, rounds=1, local_epochs=400, learning_rate=0.3, evaluate_every=0
    )
    x = frame[["bmi", "bp"]].to_numpy(dtype=float)
    x = np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(x))])
    y = ((frame.target - frame.target.mean()) / frame.target.std(ddof=0)).to_numpy()
    n = len(y)
    expected = np.linalg.solve(x.T @ x / n + 0.7 * np.eye(3), x.T @ y / n)
    np.testing.assert_allclose(weights(found), expected, atol=1e-6)


def test_several_steps_a_round_protect_no_person() -> None:
    from fivefold.study.definition import DifferentialPrivacy
    from tests.algorithms.training_data import moved

    _, setting, _ = real_data.breast()
    private = moved(setting, differential_privacy=DifferentialPrivacy("person", 3.0, 1e-5, 1.0))
    with pytest.raises(StudyInvalid) as caught:
        fedprox.parse(analysis("fedprox", clip=1.0), private)
    assert "unit: site" in caught.value.hint
