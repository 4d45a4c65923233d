"""Whole survival studies through the real secure sum: lung cancer at five sites against lifelines on all rows at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test

from examples import prepare
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Engine
from fivefold.engines.local import LocalEngine, local_engine
from fivefold.protocol.results import Result
from tests.journeys.consortium import Gone, pooled, signed

GONE = "inst-10-12"
FITTING = 7
"""A round of the Cox model's Newton steps, after two analyses."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("journey") / "lung"
    prepare.prepare("lung", out)
    return out


@pytest.fixture
def lung(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "lung")


def engine(out: Path) -> LocalEngine:
    return local_engine(out / "sites", tuple(s.name for s in signed(out).study.sites))


def run(out: Path, over: Engine) -> dict[str, Result]:
    done = session.run(signed(out), over, out / "run", tell=lambda _: None, engine_name="local", resume=False)
    found = {name: result for name, result in done.results.items() if isinstance(result, Result)}
    assert found.keys() == done.results.keys(), done.results
    return found


def assert_cox(found: Result, rows: pd.DataFrame, strata: list[str] | None) -> None:
    here = rows[rows.site.isin(found.sites)].dropna(subset=["ecog"])[["time", "died", "age", "sex", "ecog", "site"]]
    here = here if strata else here.drop(columns="site")
    fit = CoxPHFitter().fit(here, "time", "died", strata=strata, fit_options={"precision": 1e-20, "r_precision": 0.0})
    table = found.tables["coefficients"]
    np.testing.assert_allclose(table.column("coefficient"), fit.params_, rtol=1e-8)
    np.testing.assert_allclose(table.column("standard_error"), fit.standard_errors_, rtol=1e-8)
    assert found.facts["log_likelihood"] == pytest.approx(fit.log_likelihood_, rel=1e-10)
    assert found.facts["persons"] == len(here)
    assert abs(found.facts["concordance"] - fit.concordance_index_) <= found.facts["concordance_bound"] + 1e-12


def assert_curves(found: Result, rows: pd.DataFrame) -> None:
    here = rows[rows.site.isin(found.sites)]
    table = found.tables["curves"]
    curves = pd.DataFrame(table.rows, columns=list(table.columns))
    for sex, label in enumerate(("male", "female")):
        part = here[here.sex == sex]
        fit = KaplanMeierFitter().fit(part.time.round(), part.died)
        curve = curves[curves.group == label].set_index("time")
        assert len(curve) > 20
        np.testing.assert_allclose(curve.survival, fit.survival_function_.iloc[:, 0].loc[curve.index], atol=1e-10)
        bands = fit.confidence_interval_.loc[curve.index].to_numpy()
        np.testing.assert_allclose(curve[["low", "high"]], bands, atol=1e-10)
    test = multivariate_logrank_test(here.time.round(), here.sex, here.died)
    assert found.tables["log_rank"].rows[0][1] == pytest.approx(test.test_statistic, rel=1e-10)


@pytest.mark.parametrize("drops", [False, True])
def test_survival_over_sites_is_survival_over_all_rows(lung: Path, drops: bool) -> None:
    over = Gone(engine(lung), GONE, "ask", FITTING) if drops else engine(lung)
    found, rows = run(lung, over), pooled(lung)
    assert_curves(found["survival"], rows)
    assert len(found["survival"].sites) == 5
    assert_cox(found["cox"], rows, None)
    assert_cox(found["cox-by-site"], rows, ["site"])
    for name in ("cox", "cox-by-site"):
        assert (GONE not in found[name].sites) == drops
        assert found[name].dropped == ((GONE,) if drops else ())
