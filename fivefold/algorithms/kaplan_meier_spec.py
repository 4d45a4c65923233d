"""What a study may say of survival curves, and what it means: the frozen spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fivefold.algorithms.design import known, level_label, ranged
from fivefold.algorithms.method import Cost, Setting
from fivefold.algorithms.options import Options
from fivefold.algorithms.survival_curve import Bands
from fivefold.algorithms.survival_grid import TimeGrid, parse_grid
from fivefold.algorithms.survival_rows import require_response, require_strata, strata_count
from fivefold.errors import FormulaInvalid
from fivefold.study.definition import Analysis
from fivefold.study.formula import SITE, Survival
from fivefold.study.formula import parse as parse_formula

OPTIONS = ("time_grid", "confidence", "bands", "restricted_mean", "log_rank")


@dataclass(frozen=True)
class KaplanMeierSpec:
    """Curves of the groups that the categories `groups` make together. `local`: the log-rank test compares within sites.

    `restricted_mean` is the time up to which mean survival is taken, or None; `tested` asks for the log-rank test.
    """

    setting: Setting
    name: str
    formula: str
    response: Survival
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    local: bool
    grid: TimeGrid
    subgroup: str
    level: float
    bands: Bands
    restricted_mean: float | None
    tested: bool

    @property
    def variables(self) -> tuple[str, ...]:
        """What a row must have to be used."""
        return tuple(dict.fromkeys((*self.response.variables, *self.groups, *self.strata)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Strata, groups, grid times."""
        dictionary = self.setting.dictionary
        return strata_count(dictionary, self.strata), strata_count(dictionary, self.groups), self.grid.size

    def label(self, group: int) -> str:
        """A group's name: the labels of its codes."""
        words: list[str] = []
        for name in reversed(self.groups):
            variable = self.setting.dictionary[name]
            group, level = divmod(group, len(variable.levels))
            label = level_label(variable, level)
            words.append(f"{name}: {label}" if variable.type == "boolean" or len(self.groups) > 1 else label)
        return ", ".join(reversed(words)) or "all"

    def selection(self) -> dict[str, Any]:
        """What every question says of the rows."""
        return {
            "variables": self.variables,
            "subgroup": self.subgroup,
            "time": self.response.time,
            "status": self.response.status,
            "start": self.response.start or "",
            "groups": self.groups,
            "strata": self.strata,
            "grid": self.grid.as_argument(),
            "one_row_each": not self.grid.event_level,
        }


def parse(analysis: Analysis, setting: Setting) -> KaplanMeierSpec:
    """The spec of an analysis. Raises `FormulaInvalid` or `StudyInvalid`."""
    options, dictionary = Options(analysis, OPTIONS), setting.dictionary
    formula = parse_formula(analysis.formula)
    for name in formula.variables:
        known(name, dictionary, formula.text)
    response = require_response(formula.response, dictionary, "kaplan_meier")
    for name in response.variables[:-1]:
        ranged(dictionary[name], formula.text)
    if formula.by_site:
        raise FormulaInvalid(
            "curves by site would show each site's own totals", help="Write strata(site) for a test within sites."
        )
    for name in formula.covariates:
        if not dictionary[name].levels:
            raise FormulaInvalid(
                f"survival curves are drawn by category, and {name!r} is a {dictionary[name].type}", variable=name,
                help=f"Declare a derived variable that cuts {name!r} into classes.",
            )  # fmt: skip
    grid = parse_grid(options.given.get("time_grid"), dictionary[response.time])
    groups = formula.covariates
    until = options.given.get("restricted_mean")
    bands = options.choice("bands", ("log-log", "log", "plain"), "log-log")
    return KaplanMeierSpec(
        setting=setting,
        name=analysis.name,
        formula=formula.text,
        response=response,
        groups=groups,
        strata=require_strata(formula.strata, dictionary),
        local=SITE in formula.strata,
        grid=grid,
        subgroup=options.subgroup(dictionary),
        level=options.number("confidence", 0.95, 0.5, 0.9999),
        bands="plain" if bands == "plain" else "log" if bands == "log" else "log-log",
        restricted_mean=None if until is None else options.number("restricted_mean", 0.0, 1e-9, float(grid.edges[-1])),
        tested=options.flag("log_rank", bool(groups)) and bool(groups),
    )


def cost(spec: KaplanMeierSpec) -> Cost:
    """One round, and its numbers."""
    strata, groups, times = spec.shape
    cohort = 6 + len(spec.variables) + groups
    test = 3 * groups + groups * (groups + 1) // 2 if spec.local and spec.tested else 0
    return Cost(1, cohort + strata * groups * times * (3 if spec.response.start else 2) + 2 * groups + test)
