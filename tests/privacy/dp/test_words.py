"""The promise in words: never told smaller than it is, unit and neighbour relation beside it."""

from __future__ import annotations

import pytest

from fivefold.privacy.dp.words import certainty, landmarks, meaning, sentences, short


def test_the_line_names_unit_neighbours_epsilon_and_delta() -> None:
    assert short("person", 2.1401, 1e-6) == "ε = 2.15 at δ = 1e-06 per person (all rows of one person at a site, there or not)"
    assert "per site (all rows of one site, there or not)" in short("site", 1.0, 1e-5)


@pytest.mark.parametrize("epsilon", [0.001234, 0.9999, 1.0, 3.14159, 10.001])
def test_an_epsilon_is_rounded_up(epsilon: float) -> None:
    said = float(short("person", epsilon, 1e-6).split()[2])
    assert epsilon <= said * (1 + 1e-12)
    assert said <= epsilon * 1.01


def test_what_one_three_and_ten_mean() -> None:
    one, three, ten = landmarks()
    assert "73 % certain" in one
    assert "95 % certain" in three
    assert "99.995 % certain" in ten
    assert certainty(0.0) == 0.5
    assert "more than 99.999 %" in meaning(30.0)


def test_the_sentences_of_a_study() -> None:
    text = " ".join(sentences("site", 1.5, 1e-6, 2.0))
    assert "the study may cost ε = 2" in text
    assert "whether a site's rows are among the data" in text
