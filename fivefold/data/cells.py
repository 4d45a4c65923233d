"""One column as it was found → float64 in the dictionary's terms, and a fault for each cell that is not a value.

Cells repeat, so each distinct cell is read once. Nothing is dropped here: a cell that is no value becomes NaN with its fault.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.data.mapping import Mapped, Mapping, canonical
from fivefold.data.units import converter
from fivefold.errors import MappingInvalid, UnitUnknown
from fivefold.study.dictionary import Variable

Floats = npt.NDArray[np.float64]
Faults = npt.NDArray[np.int8]
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)$", re.IGNORECASE)
EPOCH = date(1970, 1, 1).toordinal()
ROUNDING = 1e-9


class Fault(IntEnum):
    """What a cell is, where it is not a value."""

    NONE = 0
    MISSING = 1
    MISSING_CODED = 2
    OUT_OF_TYPE = 3
    OUT_OF_RANGE = 4
    UNKNOWN_CODE = 5
    NOT_FINITE = 6


@dataclass(frozen=True)
class Read:
    """Values (NaN where there is a fault) and faults, one for each row."""

    values: Floats
    faults: Faults


Cell = tuple[float, Fault]


def read_column(variable: Variable, mapped: Mapped, mapping: Mapping, column: Any, rows: int) -> Read:
    """A variable of `rows` rows from a pyarrow column (None for a constant or an absent variable).

    Raises `UnitUnknown`, `MappingInvalid` for a mapping that does not fit the dictionary.
    """
    if mapped.absent:
        return Read(np.full(rows, np.nan), np.full(rows, Fault.MISSING, np.int8))
    reader = _reader(variable, mapped, mapping)
    if mapped.constant is not None:
        cells: list[str | None] = [mapped.constant]
        index = np.zeros(rows, np.int64)
    else:
        cells, index = distinct(column, variable.type == "date")
    try:
        values, faults = _finish(variable, mapped, *_each(cells, reader))
    except UnitUnknown as error:
        where = mapping.at("variables", variable.name, "unit")
        raise UnitUnknown(f"{where}, {error.message}", help=error.hint, variable=variable.name) from error
    return Read(np.append(values, np.nan)[index], np.append(faults, np.int8(Fault.MISSING))[index])


def distinct(column: Any, dates: bool = False) -> tuple[list[str | None], npt.NDArray[np.int64]]:
    """The distinct cells of a pyarrow column as text (None: of a type that no variable has), and for each row which one it
    is; -1 where the cell is null."""
    import pyarrow as pa

    encoded = pa.chunked_array(column).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return [_text(v, dates) for v in encoded.dictionary.to_pylist()], index


def _text(value: Any, dates: bool) -> str | None:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return canonical(repr(value))
    if isinstance(value, (date, datetime)):
        return value.isoformat()[:10] if dates else value.isoformat()
    return str(value) if type(value).__name__ == "Decimal" else None


def _each(cells: Iterable[str | None], reader: Callable[[str], Cell]) -> tuple[Floats, Faults]:
    read = [(math.nan, Fault.OUT_OF_TYPE) if c is None else (math.nan, Fault.MISSING) if c == "" else reader(c) for c in cells]
    return np.array([v for v, _ in read], np.float64), np.array([f for _, f in read], np.int8)


def _reader(variable: Variable, mapped: Mapped, mapping: Mapping) -> Callable[[str], Cell]:
    """How one text becomes a number: site's missing codes, site's codes, then the variable's own type."""
    site_missing = {*mapping.missing, *mapped.missing}
    missing_numbers = {float(m) for m in (*site_missing, *variable.missing_codes) if NUMBER.match(m)}
    codes = {**mapped.codes}
    levels = {level: float(i) for i, level in enumerate(variable.levels)}
    kind = _kind(variable, mapped, mapping)
    _check_codes(variable, mapped, mapping, levels)

    def read(text: str) -> Cell:
        if text in site_missing or canonical(text) in site_missing:
            return math.nan, Fault.MISSING_CODED
        code = codes.get(text, codes.get(canonical(text)))
        if code is None and (text in variable.missing_codes or canonical(text) in variable.missing_codes):
            return math.nan, Fault.MISSING_CODED
        if code is None and codes and levels:
            return math.nan, Fault.UNKNOWN_CODE
        text = text if code is None else code
        if text in variable.missing_codes:
            return math.nan, Fault.MISSING_CODED
        value, fault = kind(text)
        if levels or code is not None or value not in missing_numbers or variable.type == "date":
            return value, fault
        return math.nan, Fault.MISSING_CODED

    return read


def _check_codes(variable: Variable, mapped: Mapped, mapping: Mapping, levels: dict[str, float]) -> None:
    for site, target in mapped.codes.items():
        known = {*levels, *variable.missing_codes, *(("true", "false") if variable.type == "boolean" else ())}
        if levels and target not in known:
            raise MappingInvalid(
                f"{mapping.at('variables', variable.name, 'codes', site)}: {target!r} is not a code of {variable.name}",
                help=f"Write one of {', '.join(levels)}.",
                variable=variable.name,
            )
    if mapped.unit is not None and variable.type not in ("number", "integer"):
        raise MappingInvalid(
            f"{mapping.at('variables', variable.name, 'unit')}: {variable.name} is a {variable.type} and has no unit",
            variable=variable.name,
        )


def _kind(variable: Variable, mapped: Mapped, mapping: Mapping) -> Callable[[str], Cell]:
    if variable.type in ("number", "integer"):
        comma = mapping.source.kind == "csv" and mapping.source.decimal == ","
        return lambda text: _number(text.replace(",", ".", 1) if comma and "." not in text else text)
    if variable.type == "date":
        return lambda text: _date(text, mapped.format)
    if variable.type in ("category", "boolean"):
        levels = {level: float(i) for i, level in enumerate(variable.levels)}
        words = {"true": 1.0, "false": 0.0} if variable.type == "boolean" else {}

        def code(text: str) -> Cell:
            value = levels.get(text, levels.get(canonical(text), words.get(text.lower())))
            return (math.nan, Fault.UNKNOWN_CODE) if value is None else (value, Fault.NONE)

        return code
    raise MappingInvalid(
        f"{mapping.at('variables', variable.name)}: {variable.name} is free text, which no study reads",
        help="Declare it as a category with codes in the dictionary.",
        variable=variable.name,
    )


def _number(text: str) -> Cell:
    if NUMBER.match(text):
        value = float(text)
        return (value, Fault.NONE) if math.isfinite(value) else (math.nan, Fault.NOT_FINITE)
    return math.nan, Fault.NOT_FINITE if NOT_FINITE.match(text) else Fault.OUT_OF_TYPE


def _date(text: str, form: str | None) -> Cell:
    try:
        day = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    except ValueError:
        return math.nan, Fault.OUT_OF_TYPE
    return float(day.toordinal() - EPOCH), Fault.NONE


def _finish(variable: Variable, mapped: Mapped, values: Floats, faults: Faults) -> tuple[Floats, Faults]:
    """Unit, whole numbers, finiteness and range: of numbers and dates."""
    converted = False
    if variable.type in ("number", "integer"):
        convert = converter(variable.unit if mapped.unit is None else mapped.unit, variable.unit, variable.name)
        converted = mapped.factor is not None or (mapped.unit is not None and mapped.unit != variable.unit)
        with np.errstate(all="ignore"):
            values = convert(values) * mapped.factor if mapped.factor is not None else convert(values)
    faults = np.where((faults == Fault.NONE) & ~np.isfinite(values), np.int8(Fault.NOT_FINITE), faults)
    return checked(variable, values, faults, rounding=converted)


def checked(variable: Variable, values: Floats, faults: Faults, *, rounding: bool = False) -> tuple[Floats, Faults]:
    """Whole numbers and range: what lies outside gets its fault. `rounding`: values came from a conversion, whose last bits
    may lie beyond the range; they are put on its edge."""
    sound = faults == Fault.NONE
    if variable.type == "integer":
        whole = np.rint(values)
        sound_whole = (np.abs(values - whole) <= ROUNDING * np.maximum(1.0, np.abs(values))) & (np.abs(whole) <= 2.0**53)
        faults = np.where(sound & ~sound_whole, np.int8(Fault.OUT_OF_TYPE), faults)
        values = whole
    if variable.type in ("number", "integer", "date"):
        for edge, side in ((variable.minimum, -1.0), (variable.maximum, 1.0)):
            if edge is None:
                continue
            beyond = side * (values - edge) > 0
            if rounding:
                near = beyond & (np.abs(values - edge) <= ROUNDING * max(1.0, abs(edge)))
                values, beyond = np.where(near, edge, values), beyond & ~near
            faults = np.where((faults == Fault.NONE) & beyond, np.int8(Fault.OUT_OF_RANGE), faults)
    return np.where(faults == Fault.NONE, values, np.nan), faults.astype(np.int8)


def identifiers(column: Any, unknown: Iterable[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Person identifiers as normal text, and for each row which one it is; -1 where there is none."""
    cells, index = distinct(column)
    absent = {"", *unknown}
    names = [None if c is None or c in absent else identifier(c) for c in cells]
    known = sorted({n for n in names if n is not None})
    place = {n: i for i, n in enumerate(known)}
    lookup = np.array([-1 if n is None else place[n] for n in names] + [-1], np.int64)
    return known, lookup[index]


def identifier(text: str) -> str:
    """An identifier as it is compared: without outer blanks, composed (Unicode NFC), `12.0` as `12`."""
    return unicodedata.normalize("NFC", canonical(text.strip()))
