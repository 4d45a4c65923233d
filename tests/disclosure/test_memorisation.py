"""Attacks on membership: they find a model that learned its persons by heart, and nothing where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest

from fivefold.disclosure.memorisation import Answers, Power, attacks, flags, worst_case

R = np.random.default_rng(4)


def answers(probability: np.ndarray, outcome: np.ndarray) -> Answers:
    right = np.where(outcome == 1, probability, 1 - probability)
    return Answers(probability[:, None], -np.log(np.clip(right, 1e-7, 1)), outcome.astype(np.float64))


def test_chance_where_members_and_others_are_alike() -> None:
    """Over forty draws the 95 % intervals hold 0.5 about as often as they promise, and no attack is called a success."""
    held, won = 0, 0
    for seed in range(40):
        p, y = R.uniform(size=300), R.integers(0, 2, 300)
        powers = attacks(answers(p[:200], y[:200]), answers(p[200:], y[200:]), classes=True, seed=seed)
        held += sum(x.low <= 0.5 <= x.high for x in powers)
        won += sum(x.succeeds for x in powers)
    assert held >= 70  # of 80
    assert won <= 1


def test_a_model_that_is_sure_of_its_members_is_found_by_both_attacks() -> None:
    y = R.integers(0, 2, 400)
    sure, unsure = R.beta(20, 1, 200), R.beta(2, 2, 200)
    p = np.where(y == 1, np.concatenate([sure, unsure]), 1 - np.concatenate([sure, unsure]))
    powers = attacks(answers(p[:200], y[:200]), answers(p[200:], y[200:]), classes=True)
    assert [x.attack for x in powers] == ["loss", "scores"]
    assert all(x.succeeds and x.auc > 0.8 for x in powers)


def test_the_attack_by_scores_learns_a_pattern_that_no_threshold_has() -> None:
    """Members in the middle of the scores, others at both ends: the loss says nothing, a learned attack does."""
    members, others = R.uniform(0.4, 0.6, (300, 1)), np.where(R.random((300, 1)) < 0.5, 0.1, 0.8) + R.uniform(0, 0.1, (300, 1))
    assert worst_case(members, others).low > 0.9


def test_area_and_interval_are_those_of_the_definition() -> None:
    inside, outside = np.round(R.normal(0.3, 1, 60), 1), np.round(R.normal(0, 1, 45), 1)  # with ties
    (found,) = attacks(
        Answers(np.zeros((60, 1)), -inside, np.zeros(60)), Answers(np.zeros((45, 1)), -outside, np.zeros(45)), classes=False
    )
    wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    spread = np.sqrt(wins.mean(axis=1).var(ddof=1) / 60 + wins.mean(axis=0).var(ddof=1) / 45)
    np.testing.assert_allclose([found.auc, found.low], [wins.mean(), wins.mean() - 1.96 * spread], rtol=1e-12)


def test_too_few_persons_say_nothing() -> None:
    some, few = R.uniform(size=100), R.uniform(size=19)
    assert [x.attack for x in attacks(answers(some, some > 0.5), answers(few, few > 0.5), classes=True)] == ["loss"]
    assert attacks(answers(some, some > 0.5), answers(few[:9], few[:9] > 0.5), classes=True) == ()


def test_an_attack_succeeds_surely_above_one_mark_or_above_another_and_chance() -> None:
    assert Power("loss", 0.58, 0.56, 0.6).succeeds
    assert Power("loss", 0.7, 0.51, 0.9).succeeds
    assert not Power("loss", 0.7, 0.49, 0.9).succeeds  # few persons held out prove little
    assert not Power("loss", 0.58, 0.54, 0.62).succeeds


@pytest.mark.parametrize(
    ("predicted", "outcome", "found"),
    [
        ([0.1] * 10 + [0.9] * 10, [0, 1] * 10, ()),
        ([0.1] * 10 + [0.9] * 4, [0, 1] * 7, ("k-anonymity",)),
        ([0.1] * 10 + [0.9] * 10, [0] * 10 + [0, 1] * 5, ("class-disclosure",)),
        ([0.1] * 20, [1, 1] + [0] * 18, ("smallest-class",)),
    ],
)
def test_each_flag_of_form_alone(predicted: list[float], outcome: list[int], found: tuple[str, ...]) -> None:
    assert flags(answers(np.array(predicted), np.array(outcome)), classes=True, threshold=5) == found
