"""Results of real data for the tests of tables, figures and crates: the lung cancer patients of lifelines."""

from __future__ import annotations

import math
from functools import cache

from fivefold.protocol.results import Figure, Result, ResultTable

SITES = ("North", "East", "South")


@cache
def results() -> dict[str, Result]:
    """Three analyses with every kind of figure, a withheld cell, an infinite limit, and names that are hostile to files."""
    return {"sex & survival": _survival(), "cox": _cox(), "stats": _statistics()}


def _survival() -> Result:
    from lifelines import KaplanMeierFitter
    from lifelines.datasets import load_lung

    rows = []
    for sex, persons in load_lung().groupby("sex"):
        fit = KaplanMeierFitter().fit(persons["time"], persons["status"])
        band = fit.confidence_interval_survival_function_.to_numpy()
        curve, at_risk = fit.survival_function_.iloc[:, 0], fit.event_table["at_risk"]
        label = {1: "male", 2: "female"}[sex]
        rows += [(label, t, curve[t], *band[i], int(at_risk[t])) for i, t in enumerate(curve.index)]
    table = ResultTable.of("Survival by sex", ["sex", "time", "survival", "low", "high", "at_risk"], rows, units={"time": "d"})
    roles = {"group": "sex", "time": "time", "estimate": "survival", "low": "low", "high": "high"}
    figure = Figure("survival", "curve", "Survival by sex", roles, "days since registration")
    return Result("kaplan_meier", {"curve": table}, {"persons": 228, "events": 165}, SITES, (), (figure,))


def _cox() -> Result:
    columns = ("term", "coefficient", "hazard_ratio", "low", "high", "p")
    rows = [
        ("age", 0.017012888, 1.0171584, 0.99895, 1.03570, 0.06459),
        ("sex = female", -0.5132852, 0.5985260, 0.43103, 0.83111, 0.00218),
        ("ecog = 3", 2.7, 14.88, 1.9, math.inf, 1e-9),
        ("ecog = 4", None, None, None, None, None),
    ]
    table = ResultTable.of("Cox model", columns, rows, notes=("Efron's approximation for ties.",))
    roles = {"label": "term", "estimate": "hazard_ratio", "low": "low", "high": "high"}
    figure = Figure("forest", "coefficients", "Hazard ratios of age, sex & ECOG", roles, "hazard ratio", log_x=True)
    facts = {"persons": 213, "rows": 213, "events": 151, "missing_ecog": 1, "missing_sex": 0, "log_likelihood": -729.2301}
    return Result("cox", {"coefficients": table}, facts, SITES, ("South (round 3)",), (figure,), ("Stopped early.",))


def _statistics() -> Result:
    cross = ResultTable.of(
        "Sex by ECOG", ["sex", "ecog", "persons"], [("m", "0", 36), ("m", "1", 71), ("f", "0", 27), ("f", "1", None)]
    )
    grid = ResultTable.of("Deviance", ["round", "deviance"], [(1, 812.25), (2, 540.5), (3, 539.0)])
    figures = (
        Figure("heat", "cross", "Sex by ECOG", {"row": "sex", "column": "ecog", "value": "persons"}),
        Figure("bars", "cross", "Sex by ECOG", {"label": "ecog", "value": "persons", "series": "sex"}, "persons"),
        Figure("curve", "deviance", "Deviance by round", {"x": "round", "y": "deviance"}, "round", "deviance"),
    )
    return Result("statistics", {"cross": cross, "deviance": grid}, {"persons": 228}, SITES, (), figures)
