"""Cox models over sites, and the pooled fit by lifelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fivefold.algorithms.cox import METHOD
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from tests.algorithms import plain
from tests.algorithms.survival_data import sites_of

DAILY = {"step": 1, "end": 1100}
TIGHT = {"precision": 1e-20, "r_precision": 0.0}


def fit(
    data: tuple[pd.DataFrame, Sequence[Any], np.ndarray], formula: str, drops: Any = None, ring: bool = True, **options: Any
) -> Result:
    setting, tables = sites_of(*data)
    return plain.run(METHOD, Analysis("model", "cox", formula, options=options), setting, tables, drops, ring=ring)


def lifelines(
    frame: pd.DataFrame, columns: Sequence[str], time: str = "time", event: str = "status", **more: Any
) -> CoxPHFitter:
    """A pooled fit: columns `a[b]` are indicators that a is b, `a:b` products."""
    used = pd.DataFrame({name: values(frame, name) for name in columns})
    extra = [v for v in (more.get("weights_col"), more.get("cluster_col"), more.get("entry_col")) if v]
    used[[time, event, *extra, *more.get("strata", [])]] = frame[[time, event, *extra, *more.get("strata", [])]]
    return CoxPHFitter().fit(used.dropna(), time, event, fit_options=TIGHT, **more)


def values(frame: pd.DataFrame, name: str) -> pd.Series:
    out = pd.Series(1.0, index=frame.index)
    for part in name.split(":"):
        variable, _, level = part.rstrip("]").partition("[")
        known = frame[variable]
        out = out * ((known == level).astype(float).where(known.notna()) if level else known.astype(float))
    return out


def assert_equals(result: Result, pooled: CoxPHFitter, tolerance: float = 1e-8) -> None:
    """Coefficients and errors relative to the errors, likelihoods, AIC."""
    table = result.tables["coefficients"]
    np.testing.assert_array_equal(table.column("term"), list(pooled.params_.index))
    errors = pooled.standard_errors_.to_numpy()
    np.testing.assert_allclose(table.column("coefficient") / errors, pooled.params_.to_numpy() / errors, atol=tolerance, rtol=0)
    shown = "robust_error" if "robust_error" in table.columns else "standard_error"
    np.testing.assert_allclose(table.column(shown), errors, rtol=tolerance)
    np.testing.assert_allclose(table.column("hazard_ratio"), pooled.hazard_ratios_, rtol=tolerance)
    interval = pooled.confidence_intervals_.to_numpy()
    np.testing.assert_allclose(np.array([table.column("low"), table.column("high")]).T, interval, atol=tolerance * 10)
    np.testing.assert_allclose(table.column("p_value"), pooled.summary["p"], rtol=1e-6, atol=1e-300)
    assert result.facts["log_likelihood"] == pytest.approx(pooled.log_likelihood_, rel=1e-11)
    assert result.facts["aic"] == pytest.approx(pooled.AIC_partial_, rel=1e-11)
    ratio = result.tables["tests"].rows[0]
    expected = pooled.log_likelihood_ratio_test()
    assert ratio[1] == pytest.approx(expected.test_statistic, rel=1e-7)
    assert ratio[3] == pytest.approx(expected.p_value, rel=1e-6)
