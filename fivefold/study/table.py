"""A site's rows, harmonised to the dictionary: what a site step receives.

Columns are float64 vectors of one length: numbers in the dictionary's unit, booleans as 0 or 1, categories as the index of
their code in `Variable.levels`, dates as days since 1970-01-01; NaN where missing. Persons are a dense int64 index, so that
every count can be of persons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fivefold.study.dictionary import Dictionary, Variable

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Rows of one site: `columns[name]` has shape (rows,), `person` has shape (rows,)."""

    site: str
    dictionary: Dictionary
    columns: Mapping[str, Floats]
    person: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.person)

    def __getitem__(self, name: str) -> Floats:
        return self.columns[name]

    @property
    def persons(self) -> int:
        """The number of distinct persons."""
        return int(np.unique(self.person).size)

    def variable(self, name: str) -> Variable:
        return self.dictionary[name]

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Table:
        """The rows of a mask or an index."""
        return replace(self, columns={n: c[rows] for n, c in self.columns.items()}, person=self.person[rows])

    def complete(self, names: Sequence[str]) -> Table:
        """Complete cases over these variables."""
        keep = np.ones(len(self), dtype=bool)
        for name in names:
            keep &= ~np.isnan(self.columns[name])
        return self.take(keep)
