"""Rows made from the dictionary alone: no person's, but of the right types, ranges and codes, so that a study can be played.

Columns are independent. Whoever wants rows that look like patients needs another tool; these show whether everything works.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fivefold.data.harmonise import cohort
from fivefold.study.definition import Study
from fivefold.study.dictionary import Variable
from fivefold.study.expressions import evaluate
from fivefold.study.table import Floats, Table

MISSING = 0.02
"""Share of cells that are missing, as they are in real rows."""


def synthetic(study: Study, site: str, *, rows: int = 2000, seed: int = 0) -> Table:
    """The study's cohort among `rows` synthetic rows, one person each; the same for the same seed. May be empty, where hardly
    any combination of values belongs to the cohort."""
    rng = np.random.default_rng([seed, rows])
    derived = {d.variable.name for d in study.derived}
    names = [n for n in study.variables if n != study.person and n not in derived]
    columns = {name: _column(study.dictionary[name], rows, rng) for name in names}
    table = Table(site, study.phenotypes, columns, np.arange(rows, dtype=np.int64))
    for one in study.derived:
        table = replace(table, columns={**table.columns, one.variable.name: evaluate(one.expression, table, one.variable)})
    chosen = table.take(cohort(study, table)[0])
    kept = chosen.take(np.arange(min(len(chosen), study.privacy.max_rows_per_site), dtype=np.int64))
    return replace(kept, person=np.arange(len(kept), dtype=np.int64))


def _column(variable: Variable, rows: int, rng: np.random.Generator) -> Floats:
    if variable.type == "text":
        return np.full(rows, np.nan)
    if variable.levels:
        values = rng.integers(len(variable.levels), size=rows).astype(np.float64)
    else:
        low = variable.minimum if variable.minimum is not None else 0.0
        high = variable.maximum if variable.maximum is not None else low + (20_000.0 if variable.type == "date" else 100.0)
        values = low + (high - low) * rng.beta(2.0, 2.0, size=rows)
        if variable.type in ("integer", "date"):
            values = np.clip(np.round(values), np.ceil(low), np.floor(high))
    values[rng.random(rows) < MISSING] = np.nan
    return values
