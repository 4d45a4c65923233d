"""Real data as sites hold them, with dictionaries as a study would write them: round ranges, not the data's extremes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fivefold.algorithms.method import Setting
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table

HEART = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal", "num")
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


def number(name: str, low: float, high: float, kind: str = "number") -> Variable:
    return Variable(name, name, kind, minimum=low, maximum=high)


def category(name: str, *labels: str) -> Variable:
    return Variable(name, name, "category", codes={str(i): label for i, label in enumerate(labels)})


def boolean(name: str) -> Variable:
    return Variable(name, name, "boolean")


def setting(variables: Sequence[Variable], sites: Sequence[str], *, rows: int = 10_000, minimum: int = 5) -> Setting:
    return Setting(Dictionary("test", "1", {v.name: v for v in variables}), tuple(sites), minimum, rows)


def tables(frame: pd.DataFrame, surroundings: Setting, site: Sequence[int] | np.ndarray) -> tuple[Table, ...]:
    """One table for each site; `site` (rows,) says where each row lies. A column `person` is used if there is one."""
    out = []
    for i, name in enumerate(surroundings.sites):
        part = frame[np.asarray(site) == i]
        columns = {n: part[n].to_numpy(dtype=np.float64) for n in surroundings.dictionary.variables}
        person = part["person"].to_numpy() if "person" in part else np.arange(len(part))
        _, person = np.unique(person, return_inverse=True)
        out.append(Table(name, surroundings.dictionary, columns, person.astype(np.int64)))
    return tuple(out)


def rounded_range(values: pd.Series) -> tuple[float, float]:
    """A range as a person would write it: wider than the data, with one significant digit."""
    high = float(np.nanmax(np.abs(values)))
    step = 10.0 ** np.floor(np.log10(high))
    top = float((np.floor(high / step) + 1) * step)
    return (-top if float(np.nanmin(values)) < 0 else 0.0), top


def numbers(frame: pd.DataFrame, names: Sequence[str]) -> list[Variable]:
    return [number(n, *rounded_range(frame[n])) for n in names]


def breast() -> tuple[pd.DataFrame, Setting, tuple[Table, ...]]:
    """Wisconsin diagnostic breast cancer, 569 persons over five sites; `grade` cuts the mean area in three."""
    from sklearn.datasets import load_breast_cancer

    raw = load_breast_cancer(as_frame=True).frame
    frame = raw.rename(columns=lambda c: c.replace(" ", "_"))
    frame["malignant"] = 1 - frame.pop("target")
    frame["grade"] = pd.cut(frame.mean_area, [0, 450, 700, 9999], labels=False)
    names = [c for c in frame.columns if c not in ("malignant", "grade")]
    grade = category("grade", "small", "middle", "large")
    here = setting([*numbers(frame, names), boolean("malignant"), grade], [f"h{i}" for i in range(5)])
    site = np.random.default_rng(5).choice(5, len(frame), p=[0.35, 0.25, 0.2, 0.1, 0.1])
    return frame.assign(site=site), here, tables(frame, here, site)


def diabetes() -> tuple[pd.DataFrame, Setting, tuple[Table, ...]]:
    """Efron's diabetes data in their own units, 442 persons over four sites."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame["sex"] = frame.sex - 1
    names = [c for c in frame.columns if c != "sex"]
    here = setting([*numbers(frame, names), category("sex", "one", "two")], ["a", "b", "c", "d"])
    site = np.random.default_rng(6).choice(4, len(frame))
    return frame.assign(site=site), here, tables(frame, here, site)


def rossi() -> tuple[pd.DataFrame, Setting, tuple[Table, ...]]:
    """Rossi's recidivism data (lifelines), 432 persons over four sites; `prio` counts earlier convictions."""
    from lifelines.datasets import load_rossi

    frame = load_rossi()
    frame["log_week"] = np.log(frame.week)
    kinds = [boolean(n) for n in ("arrest", "fin", "race", "wexp", "mar", "paro")]
    here = setting(
        [*kinds, number("age", 15, 60, "integer"), number("prio", 0, 30, "integer"), number("week", 0, 60, "integer"),
         number("log_week", -1, 5)],
        ["a", "b", "c", "d"],
    )  # fmt: skip
    site = np.random.default_rng(7).choice(4, len(frame))
    return frame.assign(site=site), here, tables(frame, here, site)


def heart() -> tuple[pd.DataFrame, Setting, tuple[Table, ...]] | None:
    """The four hospitals of the UCI heart disease data, with their own missing values; None without FIVEFOLD_SHARED."""
    shared = os.environ.get("FIVEFOLD_SHARED")
    if not shared:
        return None
    folder = Path(shared) / "data" / "heart"
    parts = [pd.read_csv(folder / f"processed.{h}.data", names=list(HEART), na_values="?") for h in HOSPITALS]
    site = np.repeat(range(4), [len(p) for p in parts])
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[frame.chol == 0, "chol"] = np.nan
    frame["disease"] = (frame.num > 0).astype(float)
    frame["cp"] = frame.cp - 1
    here = setting(
        [number("age", 18, 100), category("sex", "female", "male"), category("cp", "typical", "atypical", "other", "none"),
         number("trestbps", 0, 300), number("chol", 50, 1000), number("thalach", 40, 250), boolean("exang"),
         number("oldpeak", -5, 10), boolean("disease"), boolean("fbs")],
        HOSPITALS,
    )  # fmt: skip
    return frame.assign(site=site), here, tables(frame, here, site)


def codes(frame: pd.DataFrame, names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The frame with categories as text, their first code first in the alphabet, as formulas of statsmodels read them."""
    words = {n: {i: f"{i}{label}" for i, label in enumerate(labels)} for n, labels in names.items()}
    return frame.assign(**{n: frame[n].map(words[n]) for n in names})
