"""What was found while a site's rows became the dictionary's: counts for the custodian's eyes. They never leave the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fivefold.data.cells import Fault, Read


@dataclass(frozen=True)
class VariableQuality:
    """Counts of rows (after opt-outs, before the cohort). They add up: `rows` = `valid` + all others."""

    name: str
    unit: str
    rows: int
    valid: int
    missing: int = 0
    missing_coded: int = 0
    out_of_type: int = 0
    out_of_range: int = 0
    unknown_code: int = 0
    not_finite: int = 0

    @property
    def invalid(self) -> int:
        """Cells that hold something, but no value of the variable."""
        return self.out_of_type + self.out_of_range + self.unknown_code + self.not_finite

    @classmethod
    def of(cls, name: str, unit: str, read: Read) -> VariableQuality:
        counts = np.bincount(read.faults, minlength=len(Fault))
        others = {fault.name.lower(): int(counts[fault]) for fault in Fault if fault is not Fault.NONE}
        return cls(name, unit, len(read.faults), int(counts[Fault.NONE]), **others)


@dataclass(frozen=True)
class QualityReport:
    """The way of the rows: read → without a person → opted out → outside the cohort, or unknown to be in it → in the cohort."""

    site: str
    rows_read: int
    rows_without_person: int
    rows_opted_out: int
    persons_opted_out: int
    rows_outside_cohort: int
    rows_cohort_unknown: int
    rows: int
    persons: int
    variables: tuple[VariableQuality, ...]
    surplus: tuple[str, ...] = ()
    """A sentence for each line of the mapping that nothing reads."""

    def value(self) -> Mapping[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def invalid(self) -> int:
        return sum(v.invalid for v in self.variables)
