"""Analyses and pooled twins of the training tests. Not a test module."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fivefold.algorithms.method import Setting
from fivefold.plugins import method
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.table import Table
from tests.algorithms import plain, real_data

BREAST = "malignant ~ mean_radius + mean_texture + mean_smoothness + mean_symmetry"


def analysis(name: str, formula: str = BREAST, **options: Any) -> Analysis:
    return Analysis("training", name, formula, options=options)


def one_site(tables: Sequence[Table], setting: Setting) -> tuple[Setting, tuple[Table, ...]]:
    """All rows at one place: the pooled twin of a study."""
    first = tables[0]
    columns = {n: np.concatenate([t[n] for t in tables]) for n in first.columns}
    start = np.cumsum([0, *(t.persons for t in tables)])
    person = np.concatenate([t.person + s for t, s in zip(tables, start[:-1], strict=True)])
    return dataclasses.replace(setting, sites=("all",)), (Table("all", first.dictionary, columns, person),)


def train(name: str, setting: Setting, tables: Sequence[Table], formula: str = BREAST, **options: Any) -> Result:
    """A training over sites, added up as the ring of the secure sum does it."""
    return plain.run(method(name), analysis(name, formula, **options), setting, tables, ring=True)


def weights(result: Result) -> np.ndarray:
    return np.array(result.tables["weights"].column("value"), dtype=np.float64)


def digits(sites: int = 10, skew: float = 0.5, seed: int = 4) -> tuple[pd.DataFrame, Setting, tuple[Table, ...]]:
    """scikit-learn's 1,797 digits, each site with its own mixture of labels (Dirichlet, as in Hsu et al., 2019)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    frame = pd.DataFrame(raw.data, columns=[f"p{i}" for i in range(64)]).assign(digit=raw.target.astype(float))
    names = [f"s{i}" for i in range(sites)]
    numbers = [real_data.number(f"p{i}", 0, 16) for i in range(64)]
    here = real_data.setting([*numbers, real_data.category("digit", *"0123456789")], names)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([skew] * sites, 10)
    site = np.array([rng.choice(sites, p=shares[int(d)]) for d in raw.target])
    return frame, here, real_data.tables(frame, here, site)


DIGITS = "digit ~ " + " + ".join(f"p{i}" for i in range(64))

FLAMBY = "disease ~ age + sex + cp + trestbps + chol + fbs + restecg + thalach + exang + oldpeak"


def moved(setting: Setting, **changes: Any) -> Setting:
    return dataclasses.replace(setting, **changes)


def as_options(result: Result) -> Mapping[str, Any]:
    return result.facts
