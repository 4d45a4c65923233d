"""The form in which an analysis may be released: as it is, with cells suppressed, or with counts rounded.

Counts come first, everything derived from them after: shares, standard errors and survival are computed again from the counts
that are shown. Survival curves are cut into intervals that hold enough events, so that no time of a single event is left, and
end where too few are at risk. What is derived from the rows themselves (means, coefficients) keeps as many digits as tell
nothing of how many there were.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fivefold.algorithms.numerics import critical
from fivefold.disclosure.suppression import small, suppress
from fivefold.disclosure.tables import CountTable, rounded
from fivefold.governance.output_counts import curves, told
from fivefold.protocol.results import Result, ResultTable, Scalar
from fivefold.study.definition import Analysis, Study

Form = Literal["as_is", "suppressed", "rounded"]
FORMS: tuple[Form, ...] = ("as_is", "suppressed", "rounded")
COUNTS = ("persons", "rows", "n", "missing", "events", "censored", "at_risk", "persons_with_event", "observed", "expected")
COUNT_FACTS = ("persons", "rows", "events", "comparable_pairs", "subgroup_unknown")
MISSING = "missing_"
DIGITS = {"numbers": 4}
OTHER_DIGITS = 6
NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


def shaped(study: Study, analysis: Analysis, result: Result, form: Form, minimum: int) -> Result:
    """The result in a form. `as_is` changes nothing; both others hide what is small."""
    if form == "as_is":
        return result
    base = minimum if form == "rounded" else 1
    tables = dict(result.tables)
    tables.pop("baseline", None)  # its rows are the times of single events
    if "curves" in tables:
        tables = _survival(result, tables, minimum, base)
    hidden = {} if base > 1 else _hidden(study, analysis, result, minimum)
    out = {name: _table(name, table, hidden, minimum, base) for name, table in tables.items()}
    facts = {name: _fact(name, value, minimum, base) for name, value in result.facts.items()}
    if base > 1:
        facts |= _derived(facts)
    figures = tuple(f for f in result.figures if f.table in out)
    return spoken(replace(result, tables=out, facts=facts, figures=figures), study)


def without_counts(result: Result) -> Result:
    """The result without any number of persons outside its cross tables: what is left where each number, beside another, would
    tell a few persons apart."""
    facts = {
        n: None if n in COUNT_FACTS or n.startswith(MISSING) or n == "degrees_of_freedom" else v
        for n, v in result.facts.items()
    }
    tables = {
        name: _mapped(table, lambda column, value: None if column in ("persons", "rows", "n", "missing") else value)
        if name == "numbers"
        else _mapped(table, lambda column, value: None if column == "share" else value)
        for name, table in result.tables.items()
    }
    return replace(result, facts=facts, tables=tables)


def spoken(result: Result, study: Study) -> Result:
    """The result without the sentences that hold a number which stands in none of its tables."""
    said = [*result.notes, *(n for t in result.tables.values() for n in t.notes)]
    if not any(NUMBER.search(n) for n in said):
        return result
    values = numbers_in(result)
    return replace(
        result,
        notes=tuple(n for n in result.notes if not absent(n, values)),
        tables={
            name: replace(t, notes=tuple(n for n in t.notes if not absent(n, values))) for name, t in result.tables.items()
        },
    )


def numbers_in(result: Result) -> frozenset[float]:
    """Every number in a result's tables and facts."""
    cells = [v for t in result.tables.values() for row in t.rows for v in row]
    found = {float(v) for v in [*cells, *result.facts.values()] if isinstance(v, (int, float)) and not isinstance(v, bool)}
    texts = [v for v in [*cells, *result.facts.values()] if isinstance(v, str)]
    return frozenset(found | {float(n.replace("−", "-")) for text in texts for n in NUMBER.findall(text)})


def absent(text: str, values: frozenset[float]) -> list[str]:
    """The numbers in a sentence that are none of these, nor one of them rounded, nor a year, nor a usual percentage."""
    out = []
    for token in NUMBER.findall(text):
        said, places = float(token.replace("−", "-")), len(token.partition(".")[2])
        usual = token in ("0", "1") or re.search(rf"\b{re.escape(token)} ?%", text) or re.search(rf"[a-z] {token}\)", text)
        if not usual and not any(math.isclose(round(v, places), said, abs_tol=1e-12) for v in values if math.isfinite(v)):
            out.append(token)
    return out


# ---- counts ---------------------------------------------------------------------------------------------------------
def _hidden(study: Study, analysis: Analysis, result: Result, minimum: int) -> dict[str, np.ndarray[Any, Any]]:
    """For each cross table which cells to hide. Of a list those with a missing value are a cell of it, too."""
    out = {}
    for name, table in told(study, analysis, result).tables.items():
        counts = table.counts
        one_way = counts.ndim == 1
        if one_way:
            counts = np.append(counts, _of(result.facts.get(f"{MISSING}{table.axes[0][0]}")))
        found = suppress(np.nan_to_num(counts), minimum, np.isnan(counts) | concentrated(counts))
        out[name] = found.mask[:-1] if one_way else found.mask
    return out


def _of(value: Scalar) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def concentrated(counts: Any) -> Any:
    """The cells that hold a whole line of a table with several axes: to belong to the line is to have the value."""
    values = np.nan_to_num(np.asarray(counts, dtype=np.float64))
    mask = np.zeros(values.shape, dtype=np.bool_)
    for axis in range(values.ndim) if values.ndim > 1 else ():
        total = values.sum(axis=axis, keepdims=True)
        mask |= (values > 0) & (values == total) & ~np.isnan(np.asarray(counts)).any(axis=axis, keepdims=True)
    return mask


def _table(name: str, table: ResultTable, hidden: Mapping[str, np.ndarray[Any, Any]], minimum: int, base: int) -> ResultTable:
    if name in hidden:
        mask = hidden[name].ravel()
        return _rows(table, [(*r[:-1], None) if mask[i] else r for i, r in enumerate(table.rows)])
    if name == "categories":
        return _shares(table, hidden, minimum, base)
    out = table
    if name == "numbers":
        out = _rows(out, [_without_few(table.columns, row, minimum) for row in out.rows])
    if name == "quantiles" and base > 1:
        out = _mapped(out, lambda column, value: value)
        middle = [(a + b) / 2 for a, b in zip(out.numbers("low"), out.numbers("high"), strict=True)]
        at = out.columns.index("estimate")
        out = _rows(out, [(*r[:at], m, *r[at + 1 :]) for r, m in zip(out.rows, middle, strict=True)])
    digits = DIGITS.get(name, OTHER_DIGITS)

    def cell(column: str, value: Scalar) -> Scalar:
        if column in COUNTS:
            return _count(value, minimum, base)
        return significant(value, digits) if name != "quantiles" and column != "time" else value

    return _mapped(out, cell)


def _shares(table: ResultTable, hidden: Mapping[str, Any], minimum: int, base: int) -> ResultTable:
    """`categories` with its cells hidden or rounded, and each share from what is shown of its variable."""
    place = {c: i for i, c in enumerate(table.columns)}
    groups: dict[str, list[tuple[Scalar, ...]]] = {}
    for row in table.rows:
        groups.setdefault(str(row[place["variable"]]), []).append(row)
    out: list[tuple[Scalar, ...]] = []
    for name, rows in groups.items():
        mask = hidden.get(f"categories.{name}", np.zeros(len(rows), dtype=np.bool_))
        persons = [None if gone else _count(r[place["persons"]], minimum, base) for r, gone in zip(rows, mask, strict=True)]
        known = [p for p in persons if isinstance(p, (int, float))]
        whole = sum(known) if len(known) == len(persons) else 0
        had = all(r[place["share"]] is not None for r in rows)
        for row, count in zip(rows, persons, strict=True):
            share = significant(count / whole, 4) if had and whole and isinstance(count, (int, float)) else None
            values = dict(zip(table.columns, row, strict=True)) | {"persons": count, "share": share}
            out.append(tuple(values[c] for c in table.columns))
    return _rows(table, out)


def _without_few(columns: Sequence[str], row: tuple[Scalar, ...], minimum: int) -> tuple[Scalar, ...]:
    """A line of `numbers` without its counts where few values are missing: their difference from all would tell how many."""
    values = dict(zip(columns, row, strict=True))
    missing = values["missing"]
    if isinstance(missing, (int, float)) and 0 < missing < minimum:
        values |= dict.fromkeys(("persons", "n", "missing"))
    return tuple(values[c] for c in columns)


def _count(value: Scalar, minimum: int, base: int) -> Scalar:
    """A count hidden where small, else rounded; expected numbers, too."""
    if not isinstance(value, (int, float)) or value == 0:
        return value
    if base == 1:
        return value if isinstance(value, float) or not 0 < value < minimum else None
    shown = rounded(value, base)
    return shown if shown >= minimum else None


def _fact(name: str, value: Scalar, minimum: int, base: int) -> Scalar:
    if name in COUNT_FACTS or name.startswith(MISSING):
        return _count(value, minimum, base)
    if isinstance(value, float):
        return significant(value, OTHER_DIGITS)
    return value


def _derived(facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Degrees of freedom and dispersion from the rounded number of rows."""
    rows, width, deviance = facts.get("rows"), facts.get("parameters"), facts.get("deviance")
    if not isinstance(rows, (int, float)) or not isinstance(width, (int, float)) or "degrees_of_freedom" not in facts:
        return {}
    degrees = rows - width
    out: dict[str, Scalar] = {"degrees_of_freedom": degrees}
    if isinstance(deviance, float) and facts.get("dispersion") != 1.0 and degrees > 0:
        out["dispersion"] = significant(deviance / degrees, OTHER_DIGITS)
    return out


# ---- survival -------------------------------------------------------------------------------------------------------
def _survival(result: Result, tables: Mapping[str, ResultTable], minimum: int, base: int) -> dict[str, ResultTable]:
    """Curves on intervals with enough events, from the counts that are shown; medians read off these curves."""
    level = result.facts.get("confidence")
    reach = critical(float(level) if isinstance(level, (int, float)) else 0.95)
    rows: list[dict[str, Any]] = []
    totals = _group_totals(tables.get("groups"))
    for group, lines in curves(result).items():
        rows += life_table(group, intervals(lines, minimum, totals.get(group)), reach, base)
    table = tables["curves"]
    notes = (
        f"intervals with {minimum} events or more; survival by the life table, from the counts that stand here",
        "`at_risk` at the beginning of each interval, `time` its end",
    )
    out = dict(tables)
    out["curves"] = replace(_rows(table, [tuple(r.get(c) for c in table.columns) for r in rows]), notes=notes)
    if "groups" in out:
        out["groups"] = _rows(out["groups"], [_medians(out["groups"].columns, r, rows) for r in out["groups"].rows])
    return out


def _group_totals(table: ResultTable | None) -> dict[str, tuple[int, int]]:
    """Persons and events of each group, where both are shown."""
    if table is None:
        return {}
    columns = zip(*(table.column(c) for c in ("group", "persons", "persons_with_event")), strict=True)
    return {str(g): (int(n), int(d)) for g, n, d in columns if n is not None and d is not None}


def intervals(lines: Sequence[Mapping[str, Any]], minimum: int, totals: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """A curve's times merged until every interval has the minimum of events, and none or the minimum of censored; the tail, in
    which this or the number at risk cannot be kept, is cut. `totals`: persons and events of the group; what they tell of the
    tail holds none or the minimum, too."""
    out: list[dict[str, Any]] = []
    open_at: Any = None
    events = censored = 0
    for at, line in enumerate(lines):
        if line["events"] is None or line["censored"] is None or line["at_risk"] is None:
            break
        open_at = line["at_risk"] if open_at is None else open_at
        events, censored = events + line["events"], censored + line["censored"]
        left = open_at - events - censored
        if open_at < minimum:
            break
        if events >= minimum and (censored == 0 or censored >= minimum) and (left == 0 or left >= minimum):
            out.append({"time": lines[at]["time"], "at_risk": open_at, "events": events, "censored": censored})
            open_at, events, censored = None, 0, 0

    def tail(of: int, events: int) -> bool:
        after = events - sum(c["events"] for c in out)
        rest = of - sum(c["events"] + c["censored"] for c in out) - after
        return all(n == 0 or n >= minimum for n in (after, rest))

    while out and totals is not None and not tail(*totals):
        out.pop()
    return out


def life_table(group: str, cells: Sequence[Mapping[str, Any]], reach: float, base: int) -> list[dict[str, Any]]:
    """The actuarial estimate from (rounded) counts: of those at risk, half of the censored count (Cutler and Ederer, 1958);
    intervals on the log-log scale, Greenwood's variance."""
    out = [{"group": group, "time": 0.0, "survival": 1.0, "standard_error": 0.0, "low": 1.0, "high": 1.0}]
    survival, greenwood = 1.0, 0.0
    for cell in cells:
        at_risk, events, censored = (rounded(cell[c], base) for c in ("at_risk", "events", "censored"))
        exposed = at_risk - censored / 2
        if exposed <= events or survival <= 0:
            break
        survival *= 1 - events / exposed
        greenwood += events / (exposed * (exposed - events))
        spread = reach * math.sqrt(greenwood) / abs(math.log(survival))
        out.append(
            {
                "group": group, "time": cell["time"], "at_risk": cell["at_risk"], "events": cell["events"],
                "censored": cell["censored"], "survival": survival, "standard_error": survival * math.sqrt(greenwood),
                "low": survival ** math.exp(spread), "high": survival ** math.exp(-spread),
            }
        )  # fmt: skip
    return out


def _medians(columns: Sequence[str], row: tuple[Scalar, ...], curve: Sequence[Mapping[str, Any]]) -> tuple[Scalar, ...]:
    """A group's line with its median read off the released curve; a restricted mean is not shown, since single times enter
    it."""
    values = dict(zip(columns, row, strict=True))
    own = [r for r in curve if r["group"] == values["group"]]
    for name, which in (("median", "survival"), ("median_low", "low"), ("median_high", "high")):
        values[name] = next((r["time"] for r in own if r[which] <= 0.5), None)
    values |= {c: None for c in columns if c.startswith("restricted_mean")}
    return tuple(values[c] for c in columns)


# ---- small things ---------------------------------------------------------------------------------------------------
def significant(value: Scalar, digits: int) -> Scalar:
    """A float with so many significant digits; anything else as it is."""
    if not isinstance(value, float) or not math.isfinite(value) or value == 0:
        return value
    return float(f"{value:.{digits}g}")


def _mapped(table: ResultTable, change: Any) -> ResultTable:
    return _rows(table, [tuple(change(c, v) for c, v in zip(table.columns, row, strict=True)) for row in table.rows])


def _rows(table: ResultTable, rows: Sequence[tuple[Scalar, ...]]) -> ResultTable:
    return replace(table, rows=tuple(rows))


def few(table: CountTable, minimum: int) -> list[tuple[int, ...]]:
    """The cells of a table that are shown and too small."""
    return [tuple(int(i) for i in at) for at in np.argwhere(small(np.nan_to_num(table.counts), minimum))]
