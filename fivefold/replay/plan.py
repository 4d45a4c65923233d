"""What a run is made of: the study's own analyses, or variations within its envelope that the lead signed since.

Coordinator and every site read the same statements and derive the same questions from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fivefold.errors import StudyInvalid
from fivefold.study.definition import Analysis, Study
from fivefold.study.envelope import Variation, load_variations

MOST = 100
"""Variations in one run."""


@dataclass(frozen=True)
class Plan:
    """The variations of a run, in order; none: it answers the study's own analyses."""

    variations: tuple[Variation, ...] = ()

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """For `Cursor`: () stands for the study's own."""
        return tuple(one.analysis for one in self.variations)

    @property
    def statements(self) -> tuple[bytes, ...]:
        """The signed files, as they travel to the sites."""
        return tuple(one.to_bytes() for one in self.variations)

    def variation(self, analysis: str) -> Variation | None:
        """The variation of this name; None for an analysis of the study itself."""
        return next((one for one in self.variations if one.analysis.name == analysis), None)

    def approved_as(self, analysis: str) -> str:
        """The analysis whose approval covers this one: of a variation, the one that it varies."""
        found = self.variation(analysis)
        return analysis if found is None else found.varies


OWN = Plan()
"""The study's own analyses."""


def plan_of(study: Study, statements: Sequence[bytes]) -> Plan:
    """The plan of signed statements, each verified: study, signature, envelope. Raises what `load_variations` raises."""
    if len(statements) > MOST:
        raise StudyInvalid(f"a run takes {MOST} variations at most", help="Run them in several runs.")
    return Plan(load_variations(statements, study))
