"""FedAdam with differential privacy on the breast example: as good as its pooled twin, within a few points, at ε = 3."""

from __future__ import annotations

import numpy as np
import pytest

from examples import privacy_price
from examples.privacy_price import Price
from fivefold.results.plots import draw


@pytest.fixture(scope="module")
def rows() -> list[Price]:
    return privacy_price.price((0.1, 3.0), seeds=range(42, 46))


def test_at_epsilon_3_the_model_is_within_three_points_of_its_pooled_twin(rows: list[Price]) -> None:
    poor, good, exact = rows
    assert (poor.name, good.name, exact.name) == ("0.1", "3", privacy_price.NO_NOISE)
    assert good.interval[0] > -0.03, good.line()
    assert exact.interval[0] > -0.03, exact.line()
    assert good.accuracy.mean() > 0.88
    assert poor.accuracy.mean() < good.accuracy.mean() - 0.02, "so little ε must show"
    assert good.curve is not None
    assert good.curve.shape == (4, 13)
    assert good.curve[:, -1].mean() > good.curve[:, 0].mean() + 0.2


def test_the_example_s_own_noise_pays_for_its_epsilon() -> None:
    study, _ = privacy_price.study_and_analysis()
    private = study.privacy.differential_privacy
    assert private is not None
    assert private.noise_multiplier >= privacy_price.multiplier(study, private.epsilon)
    assert private.noise_multiplier <= 1.05 * privacy_price.multiplier(study, private.epsilon), "more noise than is owed"


def test_table_and_curves_are_drawn(rows: list[Price]) -> None:
    assert "3 " in rows[1].line()
    drawn = draw(*privacy_price.curves(rows))["svg"].decode()
    assert "no noise" in drawn
    assert np.isfinite([cell for r in rows for cell in r.interval]).all()
