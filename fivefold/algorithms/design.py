"""From a formula to columns. Coordinator and site agree on every column without a row: all follows from formula and dictionary.

Categories are coded by contrasts against their first code. A term whose margins are not in the model takes the full set of
indicators, as in patsy (Smith, 2012), so that no column repeats another and none is missing.

The model is fitted on scaled columns (numbers less a centre, over a scale) because sums of raw squares lose digits; `transform`
takes results back exactly: raw X = scaled X @ transform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from fivefold.errors import FormulaInvalid, StudyInvalid
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.expression_syntax import suggestion
from fivefold.study.formula import SITE, Formula, Survival, Term, parse
from fivefold.study.table import Table

Floats = npt.NDArray[np.float64]
INTERCEPT = "intercept"


@dataclass(frozen=True)
class Column:
    """A product: of numbers, and of indicators that a category has this level (index; for `site`, in the design's sites)."""

    name: str
    numbers: tuple[str, ...] = ()
    levels: tuple[tuple[str, int], ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.numbers, *(v for v, _ in self.levels))

    @property
    def key(self) -> tuple[frozenset[str], frozenset[tuple[str, int]]]:
        return frozenset(self.numbers), frozenset(self.levels)


@dataclass(frozen=True)
class Design:
    """The columns of a model. `sites` are the sites that have a column of their own (the first is the reference); () if none.

    `absorbed` means that a constant is part of the model without a column: the baseline hazard of a Cox model.
    """

    formula: Formula
    columns: tuple[Column, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    sites: tuple[str, ...] = ()
    absorbed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def width(self) -> int:
        return len(self.columns)

    @property
    def variables(self) -> tuple[str, ...]:
        """What must be known of a row to use it: response, covariates, strata; never `site`."""
        return self.formula.variables

    @property
    def intercept(self) -> int | None:
        """The index of the constant column."""
        return next((i for i, c in enumerate(self.columns) if not c.variables), None)

    @property
    def crosses(self) -> tuple[tuple[str, ...], ...]:
        """The categories of each term: the tables in which an empty cell leaves a coefficient without data."""
        kinds = set(self.categories) | {SITE}
        found = (tuple(v for v in t.variables if v in kinds) for t in self.formula.terms)
        return tuple(dict.fromkeys(c for c in found if c))

    @property
    def closed(self) -> bool:
        """True if numbers may be centred: with every column, the model holds the columns that centring mixes into it."""
        keys = {c.key for c in self.columns} | ({(frozenset[str](), frozenset[tuple[str, int]]())} if self.absorbed else set())
        return all(
            (frozenset(some), frozenset(c.levels)) in keys
            for c in self.columns
            for n in range(len(c.numbers))
            for some in combinations(c.numbers, n)
        )


@dataclass(frozen=True)
class Scaling:
    """Public constants, by number of the design in order: z = (x - centre) / scale. Shapes (len(design.numbers),)."""

    centre: Floats
    scale: Floats


# ---- columns from formula and dictionary ----------------------------------------------------------------------------
@lru_cache(maxsize=64)
def _cached(text: str, dictionary: _ById, sites: tuple[str, ...], absorbed: bool) -> Design:
    return build(parse(text), dictionary.dictionary, sites, absorbed=absorbed)


class _ById:
    """A dictionary that is compared by identity, so that a design is built once for each table."""

    def __init__(self, dictionary: Dictionary) -> None:
        self.dictionary = dictionary

    def __hash__(self) -> int:
        return id(self.dictionary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.dictionary is self.dictionary


def design(formula: Formula | str, dictionary: Dictionary, sites: Sequence[str] = (), *, absorbed: bool = False) -> Design:
    """The design of a formula. `sites` are those that take part (used only with fixed effects by site, first: reference).

    Raises `FormulaInvalid` for a variable that is unknown or cannot enter, `StudyInvalid` for a number without a range.
    """
    text = formula if isinstance(formula, str) else formula.text
    return _cached(text, _ById(dictionary), tuple(sites), absorbed)


def build(formula: Formula, dictionary: Dictionary, sites: tuple[str, ...], *, absorbed: bool) -> Design:
    """As `design`, without its memory."""
    if SITE in dictionary and (formula.by_site or SITE in formula.strata):
        raise FormulaInvalid(
            f"in the formula {formula.text!r} `site` means the study's sites, and the dictionary has a variable of that name",
            help="Rename the dictionary's variable.", variable=SITE,
        )  # fmt: skip
    for name in formula.variables:
        known(name, dictionary, formula.text)
    numbers = tuple(v for v in formula.covariates if v != SITE and not _is_category(dictionary[v]))
    categories = tuple(v for v in formula.covariates if v != SITE and _is_category(dictionary[v]))
    for name in numbers:
        ranged(dictionary[name], formula.text)
    for name in categories:
        _leveled(dictionary[name], formula.text)
    used_sites = sites if formula.by_site else ()
    columns = tuple(_columns(formula, dictionary, set(numbers), used_sites, absorbed))
    if not columns and not absorbed:
        raise FormulaInvalid(f"the formula {formula.text!r} has neither a covariate nor an intercept", help="Write `~ 1`.")
    return Design(formula, columns, numbers, categories, used_sites, absorbed)


def known(name: str, dictionary: Dictionary, where: str) -> Variable:
    """A variable of the dictionary, or `FormulaInvalid` with the nearest name."""
    if name not in dictionary:
        hint = suggestion(name, list(dictionary.variables))
        raise FormulaInvalid(f"`{where}` names {name!r}, which the study does not use", help=hint, variable=name)
    return dictionary[name]


def ranged(variable: Variable, where: str) -> Variable:
    """A number with a range, or an error that says what to write."""
    if variable.type == "text":
        raise FormulaInvalid(
            f"`{where}` uses {variable.name!r}, which is free text", help="Declare it as a category.", variable=variable.name
        )
    if variable.minimum is None or variable.maximum is None or not variable.minimum < variable.maximum:
        raise StudyInvalid(
            f"`{where}` uses {variable.name!r}, which has no range", variable=variable.name,
            help=f"Write `minimum:` and `maximum:` for {variable.name!r} in the dictionary; sums are scaled by them.",
        )  # fmt: skip
    return variable


def _leveled(variable: Variable, where: str) -> None:
    if len(variable.levels) < 2:
        raise FormulaInvalid(
            f"`{where}` uses {variable.name!r}, a category with fewer than two codes", variable=variable.name,
            help="Take it out, or list its codes in the dictionary.",
        )  # fmt: skip


def _is_category(variable: Variable) -> bool:
    return variable.type in ("category", "boolean")


def level_label(variable: Variable, index: int) -> str:
    """What a level is called in tables: its label where labels tell the codes apart, else its code."""
    if variable.type == "boolean":
        return ("no", "yes")[index]
    labels = tuple(variable.codes.values())
    clear = all(labels) and len(set(labels)) == len(labels)
    return labels[index] if clear else variable.levels[index]


def _columns(
    formula: Formula, dictionary: Dictionary, numbers: set[str], sites: tuple[str, ...], absorbed: bool
) -> list[Column]:
    used: dict[frozenset[str], set[frozenset[tuple[str, bool]]]] = {}
    constant = formula.intercept or absorbed
    out: list[Column] = []
    for term in (*((Term(()),) if constant else ()), *formula.terms):
        inside = tuple(v for v in term.variables if v in numbers)
        factors = tuple(v for v in term.variables if v not in numbers)
        for coding in _codings(factors, used.setdefault(frozenset(inside), set())):
            out.extend(_block(term, inside, coding, dictionary, sites))
    return [c for c in out if c.variables] if absorbed else out


def _codings(factors: tuple[str, ...], used: set[frozenset[tuple[str, bool]]]) -> list[dict[str, bool]]:
    """Which indicators a term adds: each coding maps its factors to full (True) or contrast (False), in the term's order.

    A term spans the contrasts of every subset of its factors. Those that earlier terms hold are left out; the others are joined
    into as few blocks as possible (contrasts of a and b, with contrasts of a, make contrasts of a with all levels of b).
    """
    subsets = [frozenset((f, False) for f in some) for n in range(len(factors) + 1) for some in combinations(factors, n)]
    blocks = [s for s in subsets if s not in used]
    used.update(blocks)
    while (joined := _joined(blocks)) is not None:
        blocks = joined
    return [{f: dict(block)[f] for f in factors if f in dict(block)} for block in blocks]


def _joined(blocks: list[frozenset[tuple[str, bool]]]) -> list[frozenset[tuple[str, bool]]] | None:
    for i, short in enumerate(blocks):
        for j in range(i + 1, len(blocks)):
            more = blocks[j] - short
            if len(more) == 1 and len(blocks[j]) == len(short) + 1:
                ((factor, full),) = more
                if not full:
                    rest = [b for k, b in enumerate(blocks) if k not in (i, j)]
                    rest.insert(i, short | {(factor, True)})
                    return rest
    return None


def _block(
    term: Term, numbers: tuple[str, ...], coding: Mapping[str, bool], dictionary: Dictionary, sites: tuple[str, ...]
) -> list[Column]:
    choices = []
    for factor, full in coding.items():
        count = len(sites) if factor == SITE else len(dictionary[factor].levels)
        choices.append([(factor, i) for i in range(0 if full else 1, count)])
    out = []
    for levels in product(*choices):
        chosen = dict(levels)
        parts = []
        for v in term.variables:
            if v in chosen:
                label = sites[chosen[v]] if v == SITE else level_label(dictionary[v], chosen[v])
                parts.append(f"{v}[{label}]")
            elif v in numbers:
                parts.append(v)
        out.append(Column(":".join(parts) or INTERCEPT, numbers, tuple(levels)))
    return out


# ---- scaling --------------------------------------------------------------------------------------------------------
def scaling(design: Design, dictionary: Dictionary, mean: Floats | None = None, deviation: Floats | None = None) -> Scaling:
    """Constants from the dictionary's ranges alone, or from the federated `mean` and standard `deviation` of each number.

    Numbers are centred only where the model holds the columns that this mixes in (`Design.closed`).
    """
    low = np.array([dictionary[n].minimum for n in design.numbers], dtype=np.float64)
    high = np.array([dictionary[n].maximum for n in design.numbers], dtype=np.float64)
    half = (high - low) / 2
    centre = (high + low) / 2 if mean is None else np.clip(mean, low, high)
    # Not below a thousandth of the range: bounds, and with them the ring's scale, stay near the data's own size.
    scale = half if deviation is None else np.maximum(deviation, 1e-3 * half)
    if not design.closed:
        return Scaling(np.zeros_like(half), np.maximum(np.abs(low), np.abs(high)))
    return Scaling(centre, scale)


def transform(design: Design, scaling: Scaling) -> Floats:
    """T, shape (p, p), with raw X = scaled X @ T (but for an absorbed constant): raw coefficients are solve(T, scaled ones)."""
    at = {c.key: i for i, c in enumerate(design.columns)}
    centre = dict(zip(design.numbers, scaling.centre, strict=True))
    scale = dict(zip(design.numbers, scaling.scale, strict=True))
    out = np.zeros((design.width, design.width))
    for j, column in enumerate(design.columns):
        for n in range(len(column.numbers) + 1):
            for some in combinations(column.numbers, n):
                factor = float(np.prod([scale[v] if v in some else centre[v] for v in column.numbers]))
                i = at.get((frozenset(some), frozenset(column.levels)))
                if i is not None:
                    out[i, j] = factor
    return out


def column_bounds(design: Design, dictionary: Dictionary, scaling: Scaling) -> Floats:
    """The largest absolute value of each scaled column that the dictionary's ranges permit, shape (p,)."""
    bound = {}
    for name, centre, scale in zip(design.numbers, scaling.centre, scaling.scale, strict=True):
        variable = dictionary[name]
        assert variable.minimum is not None
        assert variable.maximum is not None
        bound[name] = max(abs(variable.maximum - centre), abs(variable.minimum - centre)) / scale
    return np.array([float(np.prod([bound[v] for v in c.numbers])) for c in design.columns])


# ---- beside the rows ------------------------------------------------------------------------------------------------
def matrix(design: Design, table: Table, scaling: Scaling | None = None) -> Floats:
    """The columns of complete rows, shape (rows, p); scaled if constants are given."""
    numbers: dict[str, Floats] = {n: table[n] for n in design.numbers}
    if scaling is not None:
        for i, name in enumerate(design.numbers):
            numbers[name] = (table[name] - scaling.centre[i]) / scaling.scale[i]
    out = np.ones((len(table), design.width))
    for j, column in enumerate(design.columns):
        for name in column.numbers:
            out[:, j] *= numbers[name]
        for name, level in column.levels:
            out[:, j] *= float(table.site == design.sites[level]) if name == SITE else table[name] == level
    return out


def response(design: Design, table: Table) -> tuple[Floats, ...]:
    """The response of complete rows: (y,), or for survival (start, time, status), start 0 where entry is not delayed."""
    if isinstance(design.formula.response, Survival):
        survival = design.formula.response
        start = table[survival.start] if survival.start else np.zeros(len(table))
        return start, table[survival.time], table[survival.status]
    return (table[design.formula.response],)
