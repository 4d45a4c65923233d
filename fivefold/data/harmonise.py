"""A site's own rows → the study's `Table`: opt-outs out first, then units and codes, derived variables, and the cohort.

Nothing is silently dropped: every row and cell that is not used is counted in the `QualityReport`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fivefold.data import connectors
from fivefold.data.cells import Fault, Read, checked, identifier, identifiers, read_column
from fivefold.data.mapping import FILE, Mapped, Mapping
from fivefold.data.quality import QualityReport, VariableQuality
from fivefold.errors import ColumnMissing, MappingInvalid, OutOfBounds, StudyInvalid, ValueInvalid, ValueNotFinite
from fivefold.study.definition import Study
from fivefold.study.dictionary import Variable
from fivefold.study.expression_syntax import suggestion
from fivefold.study.expressions import evaluate, names
from fivefold.study.table import Table

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Harmonised:
    """The cohort's rows. `identifiers[table.person[i]]` is the site's own identifier of row i's person; it never leaves."""

    table: Table
    identifiers: tuple[str, ...]
    report: QualityReport


def load(study: Study, mapping: Mapping, folder: Path, *, site: str, opt_outs: Collection[str] = ()) -> Harmonised:
    """Read a site's source and harmonise it. Raises what connectors and `harmonise` raise; a missing column with the line and
    the variable that names it."""
    try:
        columns = connectors.read(mapping.source, folder, needed_columns(study, mapping))
    except ColumnMissing as error:
        raise _missing_column(study, mapping, error) from error
    return harmonise(study, mapping, columns, site=site, opt_outs=opt_outs)


def _missing_column(study: Study, mapping: Mapping, error: ColumnMissing) -> ColumnMissing:
    by = next((v.name for v in _variables(study) if mapping.variables[v.name].column == error.column), "")
    where = mapping.at("variables", by) if by else mapping.at("person")
    return ColumnMissing(f"{where}, {by or 'person'}: {error.message}", variable=by)


def needed_columns(study: Study, mapping: Mapping) -> tuple[str, ...]:
    """The columns that the study needs and no other. Raises `MappingInvalid` for a variable that is not mapped."""
    columns = [] if not isinstance(mapping.person, str) else [mapping.person]
    for variable in _variables(study):
        mapped = mapping.variables.get(variable.name)
        if mapped is None:
            strange = [line for line in surplus(study, mapping) if f"Did you mean {variable.name!r}?" in line]
            raise MappingInvalid(
                f"{FILE} says nothing about {variable.name}, which the study uses" + "".join(f" ({line})" for line in strange),
                help="Map a column to it, or write `absent: true` where the site does not have it.",
                variable=variable.name,
            )
        columns += [] if mapped.column is None else [mapped.column]
    if not columns:
        raise MappingInvalid(f"{FILE} maps no column, so no row can be counted", help="Name a column in `person:`.")
    return tuple(dict.fromkeys(columns))


def harmonise(
    study: Study, mapping: Mapping, columns: connectors.Columns, *, site: str, opt_outs: Collection[str] = ()
) -> Harmonised:
    """Columns as found → the table of the study's cohort.

    Raises `MappingInvalid`, `UnitUnknown`, `ValueNotFinite` and `ValueInvalid` (where the mapping says `on_invalid: refuse`),
    `OutOfBounds` (more rows than the study's `max_rows_per_site`).
    """
    rows = len(next(iter(columns.values())))
    person, known = _persons(mapping, columns, rows)
    nameless = person < 0
    listed = {identifier(name) for name in opt_outs}
    if listed and not isinstance(mapping.person, str):
        raise MappingInvalid(
            f"{mapping.at('person')}: without a person identifier the opt-outs cannot be taken out",
            help="Name the column that identifies a person.",
        )
    gone = {i for i, name in enumerate(known) if name in listed}
    out = np.isin(person, list(gone)) & ~nameless if gone else np.zeros(rows, dtype=bool)
    kept = ~(nameless | out)
    place = np.flatnonzero(kept)

    dictionary = study.phenotypes
    table, qualities = Table(site, dictionary, {}, person[kept]), []
    for variable in _variables(study):
        mapped = mapping.variables[variable.name]
        column = None if mapped.column is None else columns[mapped.column].take(place)
        read = read_column(variable, mapped, mapping, column, len(place))
        _refuse(variable, mapping, read, place)
        shown = _unit(variable, mapped)
        qualities.append(VariableQuality.of(variable.name, shown, read))
        table = replace(table, columns={**table.columns, variable.name: read.values})
    for derived in study.derived:
        read = _derive(derived.variable, derived.expression, table)
        _refuse(derived.variable, mapping, read, place)
        qualities.append(VariableQuality.of(derived.variable.name, derived.variable.unit, read))
        table = replace(table, columns={**table.columns, derived.variable.name: read.values})

    selected, unknown = cohort(study, table)
    chosen = table.take(selected)
    if len(chosen) > study.privacy.max_rows_per_site:
        raise OutOfBounds(
            f"the cohort has {len(chosen)} rows, more than the study's max_rows_per_site", rule="max_rows_per_site"
        )
    present, dense = np.unique(chosen.person, return_inverse=True)
    report = QualityReport(
        site=site,
        rows_read=rows,
        rows_without_person=int(nameless.sum()),
        rows_opted_out=int(out.sum()),
        persons_opted_out=len(gone),
        rows_outside_cohort=int((~selected & ~unknown).sum()),
        rows_cohort_unknown=int(unknown.sum()),
        rows=len(chosen),
        persons=len(present),
        variables=tuple(qualities),
        surplus=surplus(study, mapping),
    )
    return Harmonised(replace(chosen, person=dense.astype(np.int64)), tuple(known[i] for i in present), report)


def surplus(study: Study, mapping: Mapping) -> tuple[str, ...]:
    """One sentence, with its line, for each variable of the mapping that the study does not read: a slip of the pen would
    otherwise stay unseen. Another study may read it, so it is no fault."""
    read = {v.name for v in _variables(study)}
    derived = {d.variable.name for d in study.derived}
    found = []
    for name in mapping.variables:
        if name in read:
            continue
        if name in derived:
            why = "the study derives it from others"
        elif name == study.person:
            why = "the column that identifies a person stands under `person:`"
        elif name in study.dictionary:
            why = "the study does not use it"
        else:
            why = f"the dictionary does not have it. {suggestion(name, list(study.dictionary.variables))}"
        found.append(f"{mapping.at('variables', name)}: {name} is not read, because {why}")
    return tuple(found)


def cohort(study: Study, table: Table) -> tuple[Mask, Mask]:
    """Which rows belong, and of which it is not known (they do not): all of `include` and none of `exclude`, in Kleene's
    logic."""
    belongs = np.ones(len(table))
    for text in study.cohort.include:
        belongs = _and(belongs, evaluate(text, table))
    for text in study.cohort.exclude:
        belongs = _and(belongs, 1.0 - evaluate(text, table))
    return belongs == 1.0, np.isnan(belongs)


def _and(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _variables(study: Study) -> tuple[Variable, ...]:
    """The variables that come from the site's own columns; the person identifier comes by `person:`."""
    derived = {d.variable.name for d in study.derived}
    return tuple(study.dictionary[n] for n in study.variables if n != study.person and n not in derived)


def _unit(variable: Variable, mapped: Mapped) -> str:
    """Where the numbers came from, for the report: a unit that nobody wrote is an assumption, and shown as one."""
    if mapped.factor is not None:
        return f"× {mapped.factor:g}"
    return mapped.unit or (f"{variable.unit} (assumed)" if variable.unit and mapped.column is not None else "")


def _persons(mapping: Mapping, columns: connectors.Columns, rows: int) -> tuple[npt.NDArray[np.int64], list[str]]:
    """For each row the place of its person among the identifiers, -1 where it has none."""
    if not isinstance(mapping.person, str):
        return np.arange(rows, dtype=np.int64), [str(i + 1) for i in range(rows)]
    known, person = identifiers(columns[mapping.person], mapping.missing)
    return person, known


def _derive(variable: Variable, expression: str, table: Table) -> Read:
    for name in names(expression):
        if name not in table.columns:
            raise StudyInvalid(
                f"{variable.name} is derived from {name}, which is not computed before it", variable=variable.name
            )
    values = evaluate(expression, table, variable)
    faults = np.where(np.isnan(values), np.int8(Fault.MISSING), np.int8(Fault.NONE))
    return Read(*checked(variable, values, faults))


def _cells(count: int) -> str:
    return "1 cell holds" if count == 1 else f"{count} cells hold"


def _refuse(variable: Variable, mapping: Mapping, read: Read, place: npt.NDArray[np.int64]) -> None:
    bad = read.faults > Fault.MISSING_CODED
    if not mapping.refuses(variable.name) or not bad.any():
        return
    first = int(np.flatnonzero(bad)[0])
    fault = Fault(read.faults[first])
    kind = ValueNotFinite if fault is Fault.NOT_FINITE else ValueInvalid
    words = fault.name.lower().replace("_", " ")
    raise kind(
        f"{variable.name}: {_cells(int(bad.sum()))} no value of it; the first, in row {int(place[first]) + 1}, is {words}",
        help="Correct the data or the mapping, or write `on_invalid: missing` to count such cells as missing.",
        rule="on_invalid",
        variable=variable.name,
    )
