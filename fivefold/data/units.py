"""Units by pint: a site's own unit to the dictionary's."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.errors import UnitUnknown

Floats = npt.NDArray[np.float64]
TEXT = re.compile(r"[\w%°µμΩ/*^.·() -]{1,60}$")
LARGE_POWER = re.compile(r"(\^|\*\*)[ (+-]*\d{3}|(\^|\*\*)[^*/ ]*(\^|\*\*)")
"""Pint computes powers as it reads: a unit such as 9^9^9 would never end."""


def converter(source: str, target: str, variable: str) -> Callable[[Floats], Floats]:
    """A function of values in `source` to values in `target`. Raises `UnitUnknown` with the variable."""
    if source == target:
        return lambda values: values
    if not target:
        raise UnitUnknown(
            f"{variable}: the dictionary gives no unit, and the mapping says {source!r}",
            help="Take the unit out of mapping.yaml, or write `factor:`.",
            variable=variable,
        )
    registry: Any = _registry()
    units = []
    for text in (source, target):
        if not TEXT.match(text) or LARGE_POWER.search(text):
            raise UnitUnknown(f"{variable}: {text!r} is not a unit", variable=variable)
        try:
            units.append(registry.Unit(text))
        except Exception as error:  # pint raises errors of many kinds on text that is no unit
            raise UnitUnknown(f"{variable}: there is no unit {text!r}", variable=variable) from error
    if units[0].dimensionality != units[1].dimensionality:
        raise UnitUnknown(
            f"{variable}: {source!r} does not convert to the dictionary's {target!r}",
            help="Correct `unit:` in mapping.yaml; where a substance's own factor converts (mg/dL to mmol/L), write `factor:`.",
            variable=variable,
        )
    return lambda values: np.asarray(registry.Quantity(values, units[0]).to(units[1]).magnitude, dtype=np.float64)


@cache
def _registry() -> Any:
    import pint

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
