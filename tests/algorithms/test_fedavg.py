"""FedAvg against gradient descent on the pooled rows, in the arithmetic of the secure sum."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from fivefold.algorithms import fedavg
from fivefold.algorithms.method import Setting
from fivefold.errors import FivefoldError, FormulaInvalid, OutOfBounds, StudyInvalid
from fivefold.models.linear import sigmoid
from fivefold.privacy.fixed_point import pack
from fivefold.protocol.questions import Snapshot
from fivefold.study.definition import DifferentialPrivacy
from tests.algorithms import plain, real_data, training_data
from tests.algorithms.training_data import BREAST, analysis, moved, one_site, train, weights


def gradient_descent(frame, names, outcome, rounds, rate):
    """Logistic regression on standardised columns, written out in NumPy."""
    x = frame[names].to_numpy()
    x = np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(frame))])
    y, w = frame[outcome].to_numpy(dtype=float), np.zeros(len(names) + 1)
    for _ in range(rounds):
        w -= rate * x.T @ (sigmoid(x @ w) - y) / len(y)
    return w


def test_one_full_batch_step_a_round_is_gradient_descent_on_the_pooled_rows() -> None:
    frame, setting, tables = real_data.breast()
    found = train("fedavg", setting, tables, rounds=40, learning_rate=0.5, evaluate_every=0, update_bound=1.0)
    names = ["mean_radius", "mean_texture", "mean_smoothness", "mean_symmetry"]
    reference = gradient_descent(frame, names, "malignant", 40, 0.5)
    resolution = 2.0 ** -(31 - 3)  # of 1.0 in a ring of 32 bits that holds five sites
    assert np.abs(weights(found) - reference).max() < 40 * 5 * resolution


def test_a_regression_reaches_ordinary_least_squares_in_its_own_units() -> None:
    frame, setting, tables = real_data.diabetes()
    found = train("fedavg", setting, tables, "target ~ bmi + bp + s5", rounds=300, learning_rate=0.5, evaluate_every=0)
    x = np.column_stack([np.ones(len(frame)), frame[["bmi", "bp", "s5"]]])
    expected = np.linalg.lstsq(x, frame.target, rcond=None)[0]
    np.testing.assert_allclose(found.tables["coefficients"].column("estimate"), expected, rtol=1e-4)


def test_the_same_numbers_under_another_number_of_threads() -> None:
    script = (
        "from tests.algorithms.training_data import *; from tests.algorithms import real_data\n"
        "_, s, t = real_data.breast()\n"
        "f = 'malignant ~ ' + ' + '.join(n for n in s.dictionary.variables if n.startswith('mean'))\n"
        "for m in ('logistic', 'mlp'):\n"
        "    r = train('fedavg', s, t, f, model={'kind': m}, rounds=3, local_epochs=2, batch_size=32)\n"
        "    print(r.facts['weights_sha256'], r.facts['loss'])\n"
    )
    said = []
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout)
    assert said[0] == said[1]
    assert len(said[0].split()) == 4


def test_evaluation_is_that_of_the_pooled_rows() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    frame, setting, tables = real_data.breast()
    found = train("fedavg", setting, tables, rounds=30, learning_rate=1.0)
    names = ["mean_radius", "mean_texture", "mean_smoothness", "mean_symmetry"]
    w = gradient_descent(frame, names, "malignant", 30, 1.0)
    x = frame[names].to_numpy()
    score = sigmoid(np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(frame))]) @ w)
    assert found.facts["accuracy"] == pytest.approx(((score > 0.5) == frame.malignant).mean(), abs=1e-12)
    assert found.facts["loss"] == pytest.approx(log_loss(frame.malignant, score), rel=1e-6)
    area = roc_auc_score(frame.malignant, score)
    assert found.facts["auc_low"] <= area <= found.facts["auc_high"]
    assert found.facts["auc"] == pytest.approx(area, abs=0.02)
    assert found.tables["rounds"].column("round") == tuple(range(31))
    losses = found.tables["rounds"].column("loss")
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[-1] < 0.3 < losses[0]


def test_small_cells_of_the_histogram_are_withheld_and_the_bounds_hold_them() -> None:
    _, setting, tables = real_data.breast()
    found = train("fedavg", setting, tables, rounds=10, learning_rate=1.0, bins=60)
    shown = found.tables["calibration"].column("persons")
    assert None in shown
    assert found.facts["auc_high"] - found.facts["auc_low"] > 0.01


def test_early_stopping_keeps_the_best_weights() -> None:
    _, setting, tables = real_data.breast()
    formula = "malignant ~ " + " + ".join(n for n in setting.dictionary.variables if n.startswith(("mean", "worst")))
    options = {
        "model": {"kind": "mlp", "hidden": [32]}, "rounds": 60, "local_epochs": 5, "batch_size": 16, "learning_rate": 0.5,
        "holdout": 0.3, "patience": 4,
    }  # fmt: skip
    found = train("fedavg", setting, tables, formula, **options)
    losses = list(found.tables["rounds"].column("loss"))
    assert len(losses) < 60
    assert found.facts["loss"] == min(losses)
    assert len(losses) - 1 - losses.index(min(losses)) == 4
    assert any("ended after" in note for note in found.notes)
    best = losses.index(min(losses))
    again = train("fedavg", setting, tables, formula, **{**options, "patience": 0, "rounds": best})
    assert again.facts["weights_sha256"] == found.facts["weights_sha256"]


def test_whole_persons_are_held_out() -> None:
    from fivefold.algorithms.training_rows import held_out

    person = np.repeat(np.arange(2000), 3)
    kept = held_out(person, "a", 7, 0.25)
    assert all(len(set(kept[person == p])) == 1 for p in range(50))
    assert 0.22 < kept.mean() < 0.28
    assert (kept != held_out(person, "b", 7, 0.25)).any()
    assert (kept != held_out(person, "a", 8, 0.25)).any()


def test_a_training_goes_on_from_its_snapshot() -> None:
    _, setting, tables = real_data.breast()
    asked = analysis("fedavg", rounds=12, snapshot_every=5, batch_size=16, learning_rate=0.3, holdout=0.2)
    spec = fedavg.parse(asked, setting)
    whole, found = [], []

    def drive(generator, tell):
        sent = None
        while True:
            try:
                question = generator.send(sent)
            except StopIteration as done:
                return done.value
            if isinstance(question, Snapshot):
                found.append(question)
                sent = None
                continue
            tell.append(question)
            sent = tuple(plain.aggregate(q, tables, tables, setting) for q in question)

    result = drive(fedavg.fedavg(spec), whole)
    assert [s.state["done"] for s in found] == [5, 10]
    rest: list = []
    assert drive(fedavg.fedavg(spec, found[0]), rest) == result
    assert len(rest) == len(whole) - 6


def test_an_update_beyond_its_bound_is_an_error_and_a_clipped_one_is_not() -> None:
    _, setting, tables = real_data.breast()
    wild = {"rounds": 2, "learning_rate": 100.0, "evaluate_every": 0, "update_bound": 0.5}
    generator = fedavg.fedavg(fedavg.parse(analysis("fedavg", **wild), setting))
    (count,) = generator.send(None)
    (asked,) = generator.send((plain.aggregate(count, tables, tables, setting),))
    with pytest.raises(OutOfBounds):
        pack(asked.step(tables[0], **asked.arguments), asked.fields, 5)
    found = train("fedavg", setting, tables, **wild, clip=0.5)
    assert np.linalg.norm(weights(found)) <= 1.0 + 1e-6


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": {"kind": "forest"}}, "logistic"),
        ({"model": {"kind": "linear"}}, "logistic"),
        ({"model": {"kind": "mlp", "hidden": [0]}}, "hidden"),
        ({"model": {"layers": 3}}, "kind"),
        ({"patience": 3, "evaluate_every": 0}, "evaluate_every"),
        ({"schedule": "sometimes"}, "cosine"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(options, word) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid) as caught:
        fedavg.parse(analysis("fedavg", **options), setting)
    assert word in caught.value.hint


@pytest.mark.parametrize(
    "formula", ["Surv(a, b) ~ mean_area", BREAST + " + site", BREAST + " + strata(grade)", "malignant ~ 1"]
)
def test_formulas_that_a_training_cannot_have(formula) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises((FormulaInvalid, StudyInvalid)):
        fedavg.parse(analysis("fedavg", formula), setting)


def private(setting: Setting, unit) -> Setting:
    return moved(setting, differential_privacy=DifferentialPrivacy(unit, 3.0, 1e-5, 1.0))


def test_one_person_moves_a_round_by_no_more_than_the_clip() -> None:
    _, setting, tables = real_data.breast()
    setting = private(setting, "person")
    spec = fedavg.parse(analysis("fedavg", rounds=1, clip=0.5), setting)
    generator = fedavg.fedavg(spec)
    (count,) = generator.send(None)
    assert [f.sensitivity for f in count.fields] == [1.0]
    (asked,) = generator.send((plain.aggregate(count, tables, tables, setting),))
    (update,) = asked.fields
    assert update.sensitivity == 0.5
    table = tables[0]
    whole = plain.checked(asked, table)["update"]
    sizes = []
    for person in range(20):
        left_out = plain.checked(asked, table.take(table.person != person))["update"]
        sizes.append(np.linalg.norm(whole - left_out))
    assert max(sizes) <= 0.5 * (1 + 1e-9)
    assert max(sizes) > 0.49


def test_a_site_s_update_is_clipped_whole_and_weighs_as_any_other() -> None:
    _, setting, tables = real_data.breast()
    setting = private(setting, "site")
    asked = analysis("fedavg", rounds=5, clip=0.05, local_epochs=5, batch_size=8, learning_rate=0.5)
    log = plain.transcript(fedavg.METHOD, asked, setting, tables)
    for (question,) in log.questions:
        assert [(f.name, f.sensitivity) for f in question.fields] == [("update", 0.05)]
        for table in tables:
            assert np.linalg.norm(plain.checked(question, table)["update"]) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("unit", "options"),
    [
        ("person", {}),
        ("person", {"clip": 1.0, "local_epochs": 2}),
        ("person", {"clip": 1.0, "batch_size": 10}),
        ("person", {"clip": 1.0, "scaling": "federated"}),
        ("site", {"clip": 1.0, "evaluate_every": 1}),
        ("site", {"clip": 1.0, "weighting": "rows"}),
    ],
)
def test_what_noise_cannot_protect_is_refused(unit, options) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid) as caught:
        fedavg.parse(analysis("fedavg", **options), private(setting, unit))
    assert caught.value.hint


def test_a_site_without_rows_to_train_on_is_out_of_the_mean() -> None:
    _, setting, tables = real_data.breast()
    empty = tables[4].take(np.zeros(len(tables[4]), dtype=bool))
    found = train("fedavg", setting, (*tables[:4], empty), rounds=5, evaluate_every=0)
    alone = train("fedavg", dataclasses.replace(setting, sites=setting.sites[:4]), tables[:4], rounds=5, evaluate_every=0)
    np.testing.assert_allclose(weights(found), weights(alone), atol=1e-6)


def test_the_pooled_twin_of_a_training_is_the_training_at_one_site() -> None:
    _, setting, tables = real_data.breast()
    options = {"rounds": 20, "learning_rate": 0.5, "evaluate_every": 0}
    many, one = train("fedavg", setting, tables, **options), train("fedavg", *one_site(tables, setting), **options)
    np.testing.assert_allclose(weights(many), weights(one), atol=1e-6)


def test_the_classes_of_a_category_are_learnt() -> None:
    _, setting, tables = training_data.digits(sites=4, skew=100.0)
    found = train("fedavg", setting, tables, training_data.DIGITS, rounds=15, learning_rate=0.5, holdout=0.25)
    assert found.facts["accuracy"] > 0.85
    assert set(found.tables["coefficients"].column("class")) == set("0123456789")


def test_errors_are_those_of_the_house() -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(FivefoldError):
        fedavg.parse(analysis("fedavg", "nobody ~ mean_area"), setting)
