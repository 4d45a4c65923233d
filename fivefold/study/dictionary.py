"""The shared phenotype dictionary: what each variable means, in the study's own units and codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

VariableType = Literal["number", "integer", "category", "boolean", "date", "text"]


@dataclass(frozen=True)
class Variable:
    """One phenotype.

    `codes` maps each code to its label, in order; the first is the reference category. `missing_codes` are codes that
    mean "not known". `minimum` and `maximum` are in `unit`; a numeric variable that enters a sum needs both, since the
    secure sum's scale comes from them.
    """

    name: str
    label: str
    type: VariableType
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    missing_codes: tuple[str, ...] = ()
    iri: str = ""

    @property
    def levels(self) -> tuple[str, ...]:
        """The codes of a category in order ("0", "1" for a boolean); () for others."""
        if self.type == "boolean":
            return ("0", "1")
        return tuple(self.codes)

    @property
    def bound(self) -> float:
        """The largest absolute value that a person can have, for numbers."""
        if self.minimum is None or self.maximum is None:
            raise ValueError(f"variable {self.name!r} has no range")
        return max(abs(self.minimum), abs(self.maximum))


@dataclass(frozen=True)
class Dictionary:
    """Variables by name, in the order of the file."""

    name: str
    version: str
    variables: Mapping[str, Variable]

    def __getitem__(self, name: str) -> Variable:
        return self.variables[name]

    def __contains__(self, name: object) -> bool:
        return name in self.variables
