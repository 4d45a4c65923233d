"""The first step of every model: who is in it. Persons, rows, missing values, outcomes, and the size of each category.

One question answers all of it, so that an absent category, too few persons or too few events end an analysis in a sentence
before anything is fitted. `select` is the same selection of rows for every later step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.design import Design, level_label
from fivefold.algorithms.method import Setting
from fivefold.errors import CategoryAbsent, TooFewPersons
from fivefold.protocol.questions import Aggregate, Array, Field, Permission, Sum, site_step
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.formula import SITE
from fivefold.study.table import Table

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What is public about the rows of an analysis, over the sites that answered (`sites`, in the study's order).

    `outcome` is (persons without, persons with) the outcome, None where there is none or a cell is suppressed. `counts` holds
    the persons in each cell of each cross, NaN where suppressed. `mean` and `deviation` are of the numbers asked for, in order.
    """

    persons: int
    rows: int
    missing: Mapping[str, int]
    unknown: int
    outcome: tuple[int, int] | None
    counts: Mapping[tuple[str, ...], Array]
    mean: Floats
    deviation: Floats
    sites: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    def as_facts(self) -> dict[str, Any]:
        """For `Result.facts`: persons, rows, events (if any) and missing values by variable."""
        out: dict[str, Any] = {"persons": self.persons, "rows": self.rows}
        if self.outcome is not None:
            out["events"] = self.outcome[1]
        out |= {f"missing_{name}": n for name, n in self.missing.items()}
        return out | ({"subgroup_unknown": self.unknown} if self.unknown else {})


def select(table: Table, variables: Sequence[str], subgroup: str = "") -> Table:
    """The rows that an analysis uses: complete over the variables, and in the subgroup (not where that is unknown)."""
    return in_subgroup(table, subgroup)[0].complete(variables)


def in_subgroup(table: Table, subgroup: str) -> tuple[Table, int]:
    """The rows for which the condition holds, and the number of rows for which it is not known."""
    if not subgroup:
        return table, 0
    from fivefold.study.expressions import evaluate

    holds = evaluate(subgroup, table)
    return table.take(holds == 1.0), int(np.isnan(holds).sum())


def persons_where(table: Table, rows: npt.NDArray[np.bool_]) -> int:
    """Distinct persons among these rows."""
    return int(np.unique(table.person[rows]).size)


@site_step("cohort.count")
def count(
    table: Table,
    *,
    variables: tuple[str, ...],
    subgroup: str,
    outcome: str,
    crosses: tuple[tuple[str, ...], ...],
    numbers: tuple[str, ...],
    sites: tuple[str, ...],
) -> Mapping[str, Array]:
    """Persons, rows, missing values of each variable, persons without and with the outcome, persons in each cell of each cross
    (`site` among its variables: laid out by `sites`), and sums of scaled numbers and their squares."""
    group, unknown = in_subgroup(table, subgroup)
    cases = group.complete(variables)
    answer: dict[str, Array] = {
        "persons": np.asarray(cases.persons),
        "rows": np.asarray(len(cases)),
        "missing": np.array([np.isnan(group[v]).sum() for v in variables], dtype=np.int64),
        "unknown": np.asarray(unknown),
    }
    if outcome:
        events = persons_where(cases, cases[outcome] > 0)
        answer["outcome"] = np.array([cases.persons - events, events])
    for cross in crosses:
        answer[cross_field(cross)] = _cells(cases, cross, sites)
    if numbers:
        z = np.column_stack([_unit(cases[n], table.variable(n)) for n in numbers])
        answer["moments"] = np.array([z.sum(axis=0), (z * z).sum(axis=0)])
    return answer


def cross_field(cross: Sequence[str]) -> str:
    return "persons." + ":".join(cross)


def _cells(table: Table, cross: tuple[str, ...], sites: tuple[str, ...]) -> Array:
    """Distinct persons in each cell: shape (levels of the first, levels of the second, ...)."""
    shape = _shape(cross, table.dictionary, sites)
    if SITE in cross and table.site not in sites:
        return np.zeros(shape, dtype=np.int64)
    indices = [np.full(len(table), sites.index(table.site)) if v == SITE else table[v].astype(np.int64) for v in cross]
    flat = np.ravel_multi_index(tuple(indices), shape) if len(table) else np.zeros(0, dtype=np.int64)
    pairs = np.unique(np.column_stack([flat, table.person]), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(np.prod(shape))).reshape(shape)


def _shape(cross: tuple[str, ...], dictionary: Dictionary, sites: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(len(sites) if v == SITE else len(dictionary[v].levels) for v in cross)


def _unit(values: Floats, variable: Variable) -> Floats:
    """A number on [-1, 1] by its public range."""
    assert variable.minimum is not None
    assert variable.maximum is not None
    return (values - (variable.maximum + variable.minimum) / 2) / ((variable.maximum - variable.minimum) / 2)


# ---- the side without rows ------------------------------------------------------------------------------------------
def question(
    setting: Setting,
    variables: Sequence[str],
    subgroup: str = "",
    *,
    outcome: str = "",
    crosses: Sequence[tuple[str, ...]] = (),
    numbers: Sequence[str] = (),
) -> Sum:
    """The question whose aggregate `facts` reads. With `site` in a cross, every site's own count shows: `site_totals`."""
    most = float(setting.max_rows_per_site)
    sites = setting.sites if any(SITE in c for c in crosses) else ()
    fields = [
        Field("persons", "persons", most),
        Field("rows", "count", most),
        Field("missing", "count", most, (len(variables),)),
        Field("unknown", "count", most),
    ]
    if outcome:
        fields.append(Field("outcome", "cell", most, (2,)))
    fields += [Field(cross_field(c), "cell", most, _shape(c, setting.dictionary, sites)) for c in crosses]
    if numbers:
        fields.append(Field("moments", "real", 1.000001 * most, (2, len(numbers))))
    arguments = {
        "variables": tuple(variables), "subgroup": subgroup, "outcome": outcome, "crosses": tuple(crosses),
        "numbers": tuple(numbers), "sites": sites,
    }  # fmt: skip
    needs: tuple[Permission, ...] = ("site_totals",) if sites else ()
    return Sum(count, tuple(fields), arguments, needs)


def facts(total: Aggregate, asked: Sum, setting: Setting) -> Facts:
    """What the aggregate of `question` says. Raises `TooFewPersons` where nobody remains."""
    arguments = asked.arguments
    rows, persons = int(total["rows"]), int(total["persons"])
    if rows == 0:
        raise TooFewPersons(f"no person is left with complete values of {', '.join(arguments['variables'])}")
    outcome = None
    if arguments["outcome"] and not np.isnan(np.asarray(total["outcome"], dtype=np.float64)).any():
        outcome = (int(total["outcome"][0]), int(total["outcome"][1]))
    names = arguments["numbers"]
    mean, deviation = np.zeros(len(names)), np.zeros(len(names))
    if names:
        first, second = np.asarray(total["moments"], dtype=np.float64) / rows
        spans = [setting.dictionary[n] for n in names]
        low, high = np.array([v.minimum for v in spans]), np.array([v.maximum for v in spans])
        mean = (high + low) / 2 + first * (high - low) / 2
        deviation = np.sqrt(np.maximum(second - first**2, 0.0)) * (high - low) / 2
    return Facts(
        persons=persons,
        rows=rows,
        missing={v: int(n) for v, n in zip(arguments["variables"], total["missing"], strict=True)},
        unknown=int(total["unknown"]),
        outcome=outcome,
        counts={c: np.asarray(total[cross_field(c)], dtype=np.float64) for c in arguments["crosses"]},
        mean=mean,
        deviation=deviation,
        sites=ordered(total.sites, setting),
        dropped=ordered(total.dropped, setting),
    )


def ordered(sites: Sequence[str], setting: Setting) -> tuple[str, ...]:
    """Sites in the order of the study file."""
    present = frozenset(sites)
    return tuple(s for s in setting.sites if s in present)


def require_categories(found: Facts, design: Design, setting: Setting) -> None:
    """Every category of the model has persons, and enough of them: else `CategoryAbsent` or `TooFewPersons` that names it.

    A model's totals show the size of each category that has a coefficient, so a small one ends the model.
    """
    for cross in design.crosses:
        cells = found.counts[cross]
        for index in np.argwhere(cells == 0):
            cell = {v: int(i) for v, i in zip(cross, index, strict=True)}
            if SITE in cell and setting.sites[cell[SITE]] not in found.sites:
                continue  # a site that did not answer has no column
            words = " and ".join(_named(v, i, setting) for v, i in cell.items())
            raise CategoryAbsent(f"no person in the analysis has {words}", variable=cross[0])
        if np.isnan(cells).any():
            words = " and ".join(repr(v) for v in cross)
            raise TooFewPersons(
                f"a category of {words} has fewer than {setting.minimum_persons} persons over all sites", variable=cross[0]
            )


def _named(variable: str, level: int, setting: Setting) -> str:
    label = setting.sites[level] if variable == SITE else level_label(setting.dictionary[variable], level)
    return f"{variable} = {label}"


def require_outcome(found: Facts, name: str, setting: Setting) -> None:
    """Persons with and without the outcome: none or too few of either ends the model in a sentence that names it."""
    if found.outcome is None:
        raise TooFewPersons(
            f"fewer than {setting.minimum_persons} persons have, or have not, the outcome {name!r}", variable=name
        )
    for n, word in zip(found.outcome, ("without", "with"), strict=True):
        if n == 0:
            raise CategoryAbsent(f"no person in the analysis is {word} the outcome {name!r}", variable=name)


@dataclass
class Watch:
    """Which sites dropped, in which rounds of the method (counted from 1), and how many numbers were opened so far."""

    setting: Setting
    rounds: int = 0
    numbers: int = 0
    last: tuple[str, ...] = ()
    """The survivors of the last round."""
    stop: bool = False
    """Whether the driver has asked to stop."""
    _missed: dict[str, list[int]] = field(default_factory=dict)

    def saw(self, *totals: Aggregate, some: bool = False) -> tuple[str, ...]:
        """Note a round and its aggregates (one for each sum); returns its survivors in the study's order. `some`: a buffer, in
        which not all sites are wanted, so that nobody dropped."""
        self.rounds += 1
        self.numbers += sum(np.asarray(value).size for total in totals for value in total.values())
        for site in () if some else totals[0].dropped:
            self._missed.setdefault(site, []).append(self.rounds)
        self.stop = self.stop or totals[0].stop_requested
        if not some:
            self.last = ordered(totals[0].sites, self.setting)
        return self.last

    @property
    def dropped(self) -> tuple[str, ...]:
        return ordered(tuple(self._missed), self.setting)

    @property
    def missed(self) -> Mapping[str, tuple[int, ...]]:
        """The rounds that each dropped site missed."""
        return {site: tuple(self._missed[site]) for site in self.dropped}

    @classmethod
    def of(cls, setting: Setting, rounds: int, numbers: int, last: Sequence[str], missed: Mapping[str, Sequence[int]]) -> Watch:
        """A watch that goes on from a checkpoint."""
        return cls(setting, rounds, numbers, tuple(last), _missed={site: list(at) for site, at in missed.items()})

    def notes(self) -> tuple[str, ...]:
        """One sentence for each site that missed a round."""
        rounds = {site: ", ".join(map(str, self._missed[site])) for site in self.dropped}
        return tuple(f"{site} did not answer in round {missed} of {self.rounds}" for site, missed in rounds.items())
