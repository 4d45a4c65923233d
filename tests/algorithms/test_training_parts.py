"""Parts that all trainings share: schedules, scaling by public ranges, weights of sites, evaluation under noise, the price."""

from __future__ import annotations

import numpy as np
import pytest

from fivefold.algorithms import fedavg
from fivefold.algorithms.training_metrics import auc_bounds, calibration
from fivefold.errors import StudyInvalid
from fivefold.study.definition import DifferentialPrivacy
from tests.algorithms import plain, real_data, training_data
from tests.algorithms.training_data import BREAST, analysis, moved, one_site, train, weights


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.4] * 4),
        ("linear", [0.4, 0.3, 0.2, 0.1]),
        ("cosine", [0.4 * (1 + np.cos(np.pi * r / 4)) / 2 for r in range(4)]),
        ("step", [0.4, 0.4, 0.12, 0.04]),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    _, setting, tables = real_data.breast()
    asked = analysis("fedavg", rounds=4, learning_rate=0.4, schedule=schedule, evaluate_every=0)
    log = plain.transcript(fedavg.METHOD, asked, setting, tables)
    assert [q.arguments["rate"] for (q,) in log.questions[1:]] == pytest.approx(rates)


def test_ranges_that_everybody_knows_scale_as_federated_means_do() -> None:
    frame, setting, tables = real_data.breast()
    names = ["mean_radius", "mean_texture", "mean_smoothness", "mean_symmetry"]
    middle, wide = frame[names].mean(), frame[names].std(ddof=0)
    ranges = {n: [float(middle[n] - wide[n]), float(middle[n] + wide[n])] for n in names}
    options = {"rounds": 5, "learning_rate": 0.5, "evaluate_every": 0}
    by_range = train("fedavg", setting, tables, **options, scaling="range", ranges=ranges)
    np.testing.assert_allclose(weights(by_range), weights(train("fedavg", setting, tables, **options)), atol=1e-6)
    assert by_range.tables["scaling"].column("centre") == pytest.approx(middle.tolist())


@pytest.mark.parametrize("ranges", [{"nobody": [0, 1]}, {"mean_radius": [3, 3]}, {"mean_radius": 4}, [1, 2]])
def test_ranges_that_make_no_sense(ranges: object) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid) as caught:
        fedavg.parse(analysis("fedavg", scaling="range", ranges=ranges), setting)
    assert "ranges:" in caught.value.hint


def test_sites_weigh_by_their_rows_or_all_the_same() -> None:
    _, setting, tables = real_data.breast()
    alone = []
    for table in tables:  # what each site would hand on by itself, scaled as all are
        options = {"rounds": 1, "learning_rate": 0.5, "evaluate_every": 0, "scaling": "range"}
        alone.append(weights(train("fedavg", *one_site([table], setting), **options)))
    rows = np.array([len(t) for t in tables])
    by_rows = weights(train("fedavg", setting, tables, **options))
    equal = weights(train("fedavg", setting, tables, **options, weighting="equal"))
    np.testing.assert_allclose(by_rows, rows @ np.array(alone) / rows.sum(), atol=1e-6)
    np.testing.assert_allclose(equal, np.mean(alone, axis=0), atol=1e-6)


@pytest.mark.parametrize("task", ["binary", "classes"])
def test_under_noise_one_person_changes_one_count_of_an_evaluation(task: str) -> None:
    _, setting, tables = real_data.breast() if task == "binary" else training_data.digits(sites=3)
    formula = BREAST if task == "binary" else training_data.DIGITS
    private = moved(setting, differential_privacy=DifferentialPrivacy("person", 3.0, 1e-5, 1.0))
    asked = analysis("fedavg", formula, rounds=1, clip=1.0, evaluate_every=1)
    log = plain.transcript(fedavg.METHOD, asked, private, tables)
    judges = [q for (q,) in log.questions if q.step.name == "training.evaluate_persons"]
    assert len(judges) == 1  # after the only round: judging the first weights would cost noise and say nothing
    (field,) = judges[-1].fields
    assert field.sensitivity == 1.0
    whole = plain.checked(judges[-1], tables[0])[field.name]
    for person in range(10):
        less = plain.checked(judges[-1], tables[0].take(tables[0].person != person))[field.name]
        assert sorted(np.ravel(whole - less))[-1] == 1
        assert np.abs(whole - less).sum() == 1
    assert log.result is not None
    assert log.result.facts["accuracy"] > 0.3


def test_the_bounds_of_an_area_hold_it_however_bins_and_cells_fall() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    for _ in range(50):
        n, bins = int(rng.integers(20, 200)), int(rng.integers(2, 30))
        y = rng.integers(0, 2, n)
        if y.min() == y.max():
            continue
        score = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 0.999)
        at = (score * bins).astype(int)
        scores = np.array([np.bincount(at[y == k], minlength=bins) for k in (0, 1)], dtype=float)
        outcome = scores.sum(axis=1)
        scores[(scores > 0) & (scores < 5)] = np.nan
        low, middle, high = auc_bounds(scores, outcome)
        assert low is not None
        assert middle is not None
        assert high is not None
        assert low - 1e-12 <= roc_auc_score(y, score) <= high + 1e-12
        assert low <= middle <= high


def test_calibration_withholds_what_is_withheld() -> None:
    told = calibration(np.array([[10.0, np.nan, 0.0], [5.0, 6.0, 0.0]]))
    assert told[0][2:] == (15.0, 5 / 15)
    assert told[1][2:] == (None, None)
    assert told[2][2:] == (0.0, None)
