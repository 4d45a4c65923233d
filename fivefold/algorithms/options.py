"""The options of an analysis, read one by one: unknown keys and wrong values end in a sentence with the right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fivefold.errors import StudyInvalid
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Dictionary
from fivefold.study.expression_syntax import suggestion


class Options:
    """Reads `analysis.options`. Raises `StudyInvalid` for a key that is not among `names`, at once."""

    def __init__(self, analysis: Analysis, names: Sequence[str]) -> None:
        self.analysis = analysis
        self.given: Mapping[str, Any] = analysis.options
        for key in self.given:
            if key not in names:
                near = suggestion(str(key), list(names))
                every = "" if near.startswith("Write") else f" The options are: {', '.join(names)}."
                self.fault(f"the method {analysis.method} has no option {key!r}", near + every)

    def fault(self, what: str, instead: str) -> NoReturn:
        raise StudyInvalid(f"analysis {self.analysis.name!r}: {what}", help=instead)

    def choice(self, key: str, known: Sequence[str], default: str | None = None) -> str:
        """One of several words."""
        value = self.given.get(key, default)
        if value not in known:
            what = f"{key!r} is missing" if value is None else f"{key!r} is {value!r}"
            self.fault(what, f"Write `{key}:` and one of: {', '.join(known)}.")
        return str(value)

    def text(self, key: str, default: str = "") -> str:
        value = self.given.get(key, default)
        if not isinstance(value, str):
            self.fault(f"{key!r} is not text", f"Write `{key}:` and a name.")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.given.get(key, default)
        if not isinstance(value, bool):
            self.fault(f"{key!r} is {value!r}", f"Write `{key}: true` or `{key}: false`.")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number in [low, high]."""
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.fault(f"{key!r} is {value!r}", f"Write a number from {low:g} to {high:g}.")
        return float(value)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fault(f"{key!r} is {value!r}", f"Write a whole number from {low} to {high}.")
        return value

    def clip(self, numbers: Sequence[str], *, private: bool) -> dict[str, tuple[float, float]]:
        """Ranges under differential privacy: the narrower, the less noise; what lies outside counts as the nearer end."""
        given, out = self.given.get("clip", {}), {}
        if not isinstance(given, Mapping):
            self.fault("'clip' is not a mapping", "Write `clip: {age: [18, 90]}`.")
        if given and not private:
            self.fault("'clip' is for studies with differential privacy", "Exact sums are not clipped: take it out.")
        for name, span in given.items():
            if name not in numbers:
                self.fault(f"'clip' names {name!r}", f"Use the numbers of the analysis ({', '.join(numbers)}).")
            whole = isinstance(span, (list, tuple)) and len(span) == 2 and all(type(v) in (int, float) for v in span)
            if not whole or not -1e300 < span[0] < span[1] < 1e300:
                self.fault(f"the clip of {name!r} is not a range", "Write two numbers, the smaller one first.")
            out[str(name)] = (float(span[0]), float(span[1]))
        return out

    def subgroup(self, dictionary: Dictionary) -> str:
        """The analysis's subgroup, checked as a condition over the dictionary."""
        if self.analysis.subgroup:
            from fivefold.study.expressions import check_condition

            check_condition(self.analysis.subgroup, dictionary)
        return self.analysis.subgroup
