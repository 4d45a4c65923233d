"""What a study may say of a Cox model, and what it means: the frozen spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.algorithms.cox_diagnostics import TRANSFORMS, Transform
from fivefold.algorithms.cox_sums import Ties
from fivefold.algorithms.design import Design, Scaling, design, ranged
from fivefold.algorithms.method import Cost, Setting
from fivefold.algorithms.options import Options
from fivefold.algorithms.survival_grid import TimeGrid, parse_grid
from fivefold.algorithms.survival_rows import require_response, require_strata, require_weights, strata_count
from fivefold.errors import FormulaInvalid
from fivefold.study.definition import Analysis
from fivefold.study.formula import SITE, Survival
from fivefold.study.formula import parse as parse_formula

OPTIONS = (
    "ties", "time_grid", "weights", "robust", "proportional_hazards", "concordance", "concordance_bins", "baseline",
    "max_iterations", "confidence",
)  # fmt: skip


@dataclass(frozen=True)
class CoxSpec:
    """One Cox model. `local`: each site has its own risk sets (strata(site)). `concordance`: number of score bins, or 0."""

    setting: Setting
    name: str
    design: Design
    response: Survival
    grid: TimeGrid | None
    local: bool
    strata: tuple[str, ...]
    weights: str
    subgroup: str
    ties: Ties
    robust: bool
    transforms: tuple[Transform, ...]
    concordance: int
    baseline: bool
    max_iterations: int
    level: float

    @property
    def variables(self) -> tuple[str, ...]:
        """What a row must have to be used."""
        return tuple(dict.fromkeys((*self.design.variables, *([self.weights] if self.weights else []))))

    @property
    def strata_count(self) -> int:
        return strata_count(self.setting.dictionary, self.strata)

    @property
    def lightest(self) -> float:
        return float(self.setting.dictionary[self.weights].minimum or 1.0) if self.weights else 1.0

    @property
    def heaviest(self) -> float:
        """The largest weight that the dictionary permits."""
        return float(self.setting.dictionary[self.weights].maximum or 1.0) if self.weights else 1.0

    @property
    def largest_transform(self) -> float:
        """The largest |t| or |log t| that the time's range permits."""
        time = self.setting.dictionary[self.response.time]
        low, high = float(time.minimum or 0.0), float(time.maximum or 0.0)
        high = max(high, float(self.grid.edges[-1])) if self.grid else high
        sizes = [abs(low), abs(high)]
        if "log" in self.transforms:
            sizes += [abs(float(np.log(low))), abs(float(np.log(high)))]
        return max(sizes)

    @property
    def most_rounds(self) -> int:
        """Rounds at most: each site that drops or comes back costs up to four more."""
        return self.max_iterations + 3 + 4 * len(self.setting.sites)

    def model(self, scaling: Scaling) -> dict[str, Any]:
        """What every question says of the selection and the columns."""
        return {
            "formula": self.design.formula.text,
            "variables": self.variables,
            "subgroup": self.subgroup,
            "strata": self.strata,
            "weights": self.weights,
            "local": self.local,
            "grid": self.grid.as_argument() if self.grid else None,
            "centre": scaling.centre,
            "scale": scaling.scale,
        }


def parse(analysis: Analysis, setting: Setting) -> CoxSpec:
    """The spec of an analysis. Raises `FormulaInvalid` or `StudyInvalid`."""
    options, dictionary = Options(analysis, OPTIONS), setting.dictionary
    formula = parse_formula(analysis.formula)
    if formula.by_site:
        raise FormulaInvalid("a Cox model has no coefficient for `site`", help="Write strata(site): a hazard for each site.")
    made = design(formula, dictionary, absorbed=True)
    if made.width == 0:
        raise FormulaInvalid(f"the formula {formula.text!r} has no covariate", help="Use the method kaplan_meier for `~ 1`.")
    response = require_response(formula.response, dictionary, "cox")
    for name in response.variables[:-1]:
        ranged(dictionary[name], formula.text)
    local, time, grid = SITE in formula.strata, dictionary[response.time], options.given.get("time_grid")
    weights = options.text("weights")
    if weights:
        require_weights(weights, dictionary)
    if local and options.flag("baseline"):
        options.fault("with strata(site) a baseline hazard would be one site's own", "Leave `baseline` out.")
    index = options.flag("concordance", response.start is None)
    if index and response.start is not None:
        options.fault("concordance is not defined here with delayed entry", "Leave `concordance` out.")
    bins = options.integer("concordance_bins", 25, 2, 1000)
    return CoxSpec(
        setting=setting,
        name=analysis.name,
        design=made,
        response=response,
        grid=None if local and grid is None else parse_grid(grid, time),
        local=local,
        strata=require_strata(formula.strata, dictionary),
        weights=weights,
        subgroup=options.subgroup(dictionary),
        ties="breslow" if options.choice("ties", ("efron", "breslow"), "efron") == "breslow" else "efron",
        robust=options.flag("robust"),
        transforms=_transforms(options, local=local, lowest=time.minimum),
        concordance=bins if index else 0,
        baseline=options.flag("baseline"),
        max_iterations=options.integer("max_iterations", 25, 1, 100),
        level=options.number("confidence", 0.95, 0.5, 0.9999),
    )


def cost(spec: CoxSpec) -> Cost:
    """Rounds and numbers at most, with no site dropping."""
    p, dictionary = spec.design.width, spec.setting.dictionary
    moments, pairs, trends = 1 + p + p * (p + 1) // 2, p * (p + 1) // 2, len(spec.transforms) * (p + 2) + p + 1
    crosses = sum(strata_count(dictionary, cross) for cross in spec.design.crosses)
    cohort = 5 + len(spec.variables) + crosses + 2 * len(spec.design.numbers)
    rounds = spec.max_iterations + 2 + (1 if spec.weights and not spec.local else 0)
    if spec.local or spec.grid is None:
        return Cost(rounds, max(cohort, moments + 4, (moments + 4) + (1 + pairs) + trends + 4))
    cells = spec.grid.size * spec.strata_count
    counts = cells * (3 if spec.response.start else 2)
    histogram = (2 * cells + 1) * spec.concordance
    return Cost(rounds, max(cohort + counts, 1 + p + 2 * cells * moments, (1 + pairs) + trends + histogram))


def _transforms(options: Options, *, local: bool, lowest: float | None) -> tuple[Transform, ...]:
    """The scales of time on which proportional hazards are tested; true means `km`, or `identity` with strata(site)."""
    value = options.given.get("proportional_hazards", True)
    if value is True:
        return ("identity",) if local else ("km",)
    if value is False:
        return ()
    asked = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (value,)
    known = tuple(t for t in TRANSFORMS if t in asked)
    for name in asked:
        if name not in TRANSFORMS:
            options.fault(f"`proportional_hazards` has no transform {name!r}", f"Write {', '.join(TRANSFORMS)}, or false.")
        if local and name in ("km", "rank"):
            options.fault(
                f"the transform {name!r} needs event times that all sites share, and strata(site) shares none",
                "Write `proportional_hazards: [identity, log]`.",
            )
        if name == "log" and not (lowest is not None and lowest > 0):
            options.fault("the transform 'log' needs times above 0", "Give the time a `minimum` above 0, or take another.")
    return known
