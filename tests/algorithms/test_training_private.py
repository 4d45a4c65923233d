"""Trainings with differential privacy of persons: whoever goes, nobody else changes sides, and no field moves beyond its
sensitivity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.training_rows import Part, by_content
from fivefold.plugins import METHODS, method
from fivefold.protocol.questions import Sum
from fivefold.study.definition import Analysis
from fivefold.study.table import Table
from tests.algorithms import noisy, plain, real_data


def without(table: Table, person: int) -> Table:
    """The site as it would be had the person never come: the others are numbered anew, as a site numbers them."""
    rest = table.take(table.person != person)
    return replace(rest, person=np.unique(rest.person, return_inverse=True)[1].astype(np.int64))


def asked(**options: Any) -> Analysis:
    given = {"rounds": 1, "clip": 0.5, "holdout": 0.25, "bins": 5, "evaluate_every": 1} | options
    return Analysis("a", "fedavg", "malignant ~ mean_texture + mean_area", options=given)


def questions(setting: Any, tables: Any, **options: Any) -> list[Sum]:
    fedavg = method("fedavg")
    generator, found = fedavg.rounds(fedavg.parse(asked(**options), setting)), []
    answer: Any = None
    while True:
        try:
            question = generator.send(answer)
        except StopIteration:
            return found
        sums = question if isinstance(question, tuple) else (question,)
        found += sums
        got = tuple(plain.aggregate(q, tables, tables, setting) for q in sums)
        answer = got if isinstance(question, tuple) else got[0]


@pytest.mark.parametrize("options", [{}, {"clip": "adaptive", "clip_start": 0.5}])
def test_one_person_moves_every_field_within_its_sensitivity_though_the_others_are_numbered_anew(
    options: dict[str, Any],
) -> None:
    _, setting, tables = real_data.breast()
    setting, table = noisy.private(setting), tables[0]
    moved: dict[str, float] = {}
    for question in questions(setting, tables, **options):
        whole = plain.checked(question, table)
        for person in range(25):
            rest = plain.checked(question, without(table, person))
            for f in question.fields:
                assert f.sensitivity is not None
                size = float(np.linalg.norm(np.asarray(whole[f.name], float) - np.asarray(rest[f.name], float)))
                assert size <= f.sensitivity * (1 + 1e-12), (f.name, person)
                moved[f.name] = max(moved.get(f.name, 0.0), size / f.sensitivity)
    assert all(share > 0.5 for share in moved.values()), moved


def test_a_persons_number_follows_from_the_persons_own_rows() -> None:
    r = np.random.default_rng(1)
    x, y, person = r.normal(size=(12, 3)), r.integers(0, 2, 12).astype(float), np.repeat(np.arange(6), 2)
    numbers = by_content(Part(x, y, person))
    assert len(np.unique(numbers)) == 6
    rest = person != 2
    again = by_content(Part(x[rest], y[rest], np.unique(person[rest], return_inverse=True)[1]))
    assert np.array_equal(numbers[rest], again)
    order = r.permutation(12)
    assert np.array_equal(by_content(Part(x[order], y[order], person[order])), numbers[order])
    assert by_content(Part(x[:0], y[:0], person[:0])).shape == (0,)


@pytest.mark.parametrize("name", [n for n in METHODS if method(n).protects])
def test_a_method_that_protects_declares_every_sensitivity(name: str) -> None:
    _, setting, _ = real_data.breast()
    about = method(name)
    for unit in about.protects:
        here = noisy.private(setting, unit=unit)
        if name == "statistics":
            analysis = Analysis("a", name, variables=("mean_area", "grade"))
        elif name == "glm":
            analysis = Analysis("a", name, "malignant ~ mean_area", options={"family": "binomial"})
        else:
            analysis = replace(asked(evaluate_every=0, holdout=0), method=name)
        question = next(about.rounds(about.parse(analysis, here)))
        sums = question if isinstance(question, tuple) else (question,)
        assert all(f.sensitivity is not None for one in sums for f in one.fields)
