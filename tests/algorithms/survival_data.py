"""Real survival data as sites' tables: not a test module. Sites come from a real column wherever the data have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fivefold.algorithms.method import Setting
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table


def number(name: str, low: float, high: float, unit: str = "", *, whole: bool = False) -> Variable:
    return Variable(name, name, "integer" if whole else "number", unit, low, high)


def flag(name: str) -> Variable:
    return Variable(name, name, "boolean")


def category(name: str, *codes: str) -> Variable:
    return Variable(name, name, "category", codes={c: c for c in codes})


def sites_of(
    frame: pd.DataFrame, variables: Sequence[Variable], site: np.ndarray, person: np.ndarray | None = None
) -> tuple[Setting, tuple[Table, ...]]:
    """A setting and one table per site; `frame` holds numbers, category codes as text, and NaN."""
    dictionary = Dictionary("test", "1", {v.name: v for v in variables})
    columns: dict[str, Any] = {}
    for v in variables:
        if v.type == "category":
            columns[v.name] = frame[v.name].map({code: i for i, code in enumerate(v.levels)}).to_numpy(dtype=float)
        else:
            columns[v.name] = frame[v.name].to_numpy(dtype=float)
    who = np.arange(len(frame)) if person is None else person
    names = tuple(f"site{i}" for i in range(int(site.max()) + 1))
    tables = []
    for i, name in enumerate(names):
        rows = site == i
        _, index = np.unique(who[rows], return_inverse=True)
        tables.append(Table(name, dictionary, {n: c[rows] for n, c in columns.items()}, index.astype(np.int64)))
    return Setting(dictionary, names, 5, 100_000), tuple(tables)


def row(table: Any, name: str) -> Mapping[str, Any]:
    """One row of a result table by its first column."""
    for values in table.rows:
        if values[0] == name:
            return dict(zip(table.columns, values, strict=True))
    raise KeyError(name)


def lung() -> tuple[pd.DataFrame, list[Variable], np.ndarray]:
    """NCCTG lung cancer: 227 patients of 18 institutions in five groups; sex, ECOG and age have few holes, meals many."""
    from lifelines.datasets import load_lung

    frame = load_lung().dropna(subset=["inst"]).reset_index(drop=True)
    frame = frame.rename(
        columns={"ph.ecog": "ecog", "ph.karno": "karno", "pat.karno": "patkarno", "meal.cal": "meal", "wt.loss": "loss"}
    )
    frame["sex"] = frame["sex"].map({1: "male", 2: "female"})
    site = np.searchsorted([3, 7, 12, 16], frame["inst"].to_numpy(), side="left")
    variables = [
        number("time", 0, 1100, "day", whole=True), flag("status"), number("age", 18, 100, "year"),
        category("sex", "male", "female"), number("ecog", 0, 4), number("karno", 0, 100), number("meal", 0, 4000),
        number("loss", -50, 100), number("patkarno", 0, 100), number("inst", 1, 40, whole=True),
    ]  # fmt: skip
    return frame, variables, site.astype(np.int64)


def gbsg2() -> tuple[pd.DataFrame, list[Variable], np.ndarray]:
    """German breast cancer study group: 686 patients, split over four sites by age (no site is recorded)."""
    from lifelines.datasets import load_gbsg2

    frame = load_gbsg2().rename(columns={"horTh": "hormone", "tgrade": "grade", "pnodes": "nodes", "cens": "status"})
    site = np.digitize(frame["age"], [46, 54, 61])
    variables = [
        number("time", 1, 3000, "day", whole=True), flag("status"), number("age", 18, 100, "year"),
        category("hormone", "no", "yes"), category("grade", "I", "II", "III"), number("nodes", 0, 100),
        number("progrec", 0, 5000), category("menostat", "Pre", "Post"), number("tsize", 0, 200, "mm"),
    ]  # fmt: skip
    return frame, variables, site.astype(np.int64)


def regimes() -> tuple[pd.DataFrame, list[Variable], np.ndarray]:
    """How long governments last (Cheibub et al.): 1808 spells, sites are the continents, years with many ties."""
    from lifelines.datasets import load_dd

    frame = load_dd().rename(columns={"un_continent_name": "continent"})
    frame["democratic"] = (frame["democracy"] == "Democracy").astype(float)
    frame["regime"] = frame["regime"].str.split().str[0]
    site = pd.factorize(frame["continent"], sort=True)[0]
    variables = [
        number("duration", 0, 50, "year", whole=True), flag("observed"), flag("democratic"),
        category("regime", "Civilian", "Military", "Mixed", "Monarchy", "Parliamentary", "Presidential"),
        number("start_year", 1940, 2010),
    ]  # fmt: skip
    return frame, variables, site.astype(np.int64)


def transplants() -> tuple[pd.DataFrame, list[Variable], np.ndarray]:
    """Stanford heart transplants: 103 patients in 172 spells (start, stop]; a patient's spells lie at one of three sites."""
    from lifelines.datasets import load_stanford_heart_transplants

    frame = load_stanford_heart_transplants()
    variables = [
        number("start", 0, 2000, "day"), number("stop", 0, 2000, "day"), flag("event"), number("age", -60, 60),
        number("year", -5, 10), flag("surgery"), flag("transplant"),
    ]  # fmt: skip
    return frame, variables, (frame["id"] % 3).to_numpy().astype(np.int64)
