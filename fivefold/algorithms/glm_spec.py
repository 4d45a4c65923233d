"""A GLM's options, read and checked once: what is asked for, or a sentence that says what to write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fivefold.algorithms.design import Design, design, known, ranged
from fivefold.algorithms.glm_families import FAMILIES
from fivefold.algorithms.method import Setting
from fivefold.algorithms.options import Options
from fivefold.errors import FormulaInvalid, StudyInvalid
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.formula import SITE, Formula, Survival, parse

WEIGHTS_ARE = ("frequency", "precision")
OPTIONS = (
    "family",
    "offset",
    "exposure",
    "weights",
    "weights_are",
    "max_iterations",
    "tolerance",
    "confidence",
    "heterogeneity",
    "clip",
)
NOISY_STEPS = 6
"""Newton steps of a binomial or Poisson model with differential privacy, where each one costs."""


@dataclass(frozen=True)
class GlmSpec:
    """What `parse_glm` makes of an analysis. `offset`, `exposure` and `weights` are variables' names or ""."""

    name: str
    formula: Formula
    family: str
    offset: str
    exposure: str
    weights: str
    weights_are: str
    subgroup: str
    max_iterations: int
    tolerance: float
    confidence: float
    heterogeneity: bool
    setting: Setting
    clip: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """With differential privacy: the range in which a number counts, where it is narrower than the dictionary's."""

    def range_of(self, name: str) -> tuple[float, float]:
        """The public range of a number."""
        variable = self.setting.dictionary[name]
        return self.clip.get(name, (float(variable.minimum or 0), float(variable.maximum or 0)))

    @property
    def response(self) -> str:
        return self.formula.outcome

    @property
    def variables(self) -> tuple[str, ...]:
        """What must be known of a row."""
        beside = (self.offset, self.exposure, self.weights)
        return tuple(dict.fromkeys((*self.formula.variables, *(name for name in beside if name))))

    @property
    def local_formula(self) -> str:
        """The formula of one site's own model: without the terms in which `site` stands."""
        terms = [str(t) for t in self.formula.terms if SITE not in t.variables]
        constant = "1" if self.formula.intercept or self.formula.by_site else "0"
        return f"{self.response} ~ {' + '.join([constant, *terms])}"

    def design(self, sites: tuple[str, ...]) -> Design:
        return design(self.formula, self.setting.dictionary, sites)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers whose federated mean and deviation are asked for first."""
        dictionary = self.setting.dictionary
        numeric = [self.response] if self.family != "binomial" else []
        shifts = (name for name in (self.offset, self.exposure) if name)
        wanted = (*self.design(self.setting.sites).numbers, *numeric, *shifts)
        return tuple(dict.fromkeys(n for n in wanted if dictionary[n].type != "boolean"))


def parse_glm(analysis: Analysis, setting: Setting) -> GlmSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    options = Options(analysis, OPTIONS)
    formula = parse(analysis.formula)
    where = analysis.formula
    if isinstance(formula.response, Survival):
        raise FormulaInvalid(f"`{where}` has a survival response", help="Use the method `cox`, or name one outcome.")
    if formula.strata:
        raise FormulaInvalid(
            f"`{where}` has strata, which a GLM has not", help=f"Write + {formula.strata[0]} for fixed effects instead."
        )
    family = options.choice("family", tuple(FAMILIES))
    offset = options.text("offset")
    spec = GlmSpec(
        name=analysis.name,
        formula=formula,
        family=family,
        offset=offset,
        exposure=_exposure(options, family, formula, setting),
        weights=_weights(options, formula, setting),
        weights_are=_kind_of_weights(options),
        subgroup=analysis.subgroup,
        max_iterations=options.integer("max_iterations", NOISY_STEPS if setting.differential_privacy else 25, 1, 100),
        tolerance=options.number("tolerance", 1e-9, 1e-12, 1e-3),
        confidence=options.number("confidence", 0.95, 0.5, 0.9999),
        heterogeneity=options.flag("heterogeneity"),
        setting=setting,
    )
    options.subgroup(setting.dictionary)
    _response(known(spec.response, setting.dictionary, where), family, where)
    if offset:
        if offset in formula.variables:
            raise StudyInvalid(f"the offset {offset!r} stands in the formula `{where}` too", help="Take one of the two out.")
        variable = known(offset, setting.dictionary, f"offset: {offset}")
        if variable.type not in ("number", "integer"):
            raise StudyInvalid(f"the offset {offset!r} is a {variable.type}", help="Name a number; derive one if need be.")
        ranged(variable, f"offset: {offset}")
    spec.design(setting.sites)
    if setting.differential_privacy is not None:
        _refuse_what_noise_cannot_protect(spec, options)
    return replace(spec, clip=options.clip(spec.numbers, private=setting.differential_privacy is not None))


def _refuse_what_noise_cannot_protect(spec: GlmSpec, options: Options) -> None:
    """Persons alone; no offsets, weights or effects by site, whose sums have no declared sensitivity."""
    private = spec.setting.differential_privacy
    for key in ("offset", "exposure", "weights", "heterogeneity"):
        if getattr(spec, key):
            options.fault(f"'{key}' has no noise that protects it", f"Take '{key}' out of a study with differential privacy.")
    if spec.formula.by_site or any(SITE in t.variables for t in spec.formula.terms):
        options.fault("effects by site show one site's own noise alone", "Take `site` out of the formula.")
    if spec.family != "gaussian" and spec.max_iterations < 2:
        options.fault("one noisy step does not fit a model", "Write `max_iterations: 6`: each step costs one question.")
    if private is not None and private.unit != "person":
        options.fault("what one site changes in a GLM is not bounded", "Write `unit: person` in the study.")


def _exposure(options: Options, family: str, formula: Formula, setting: Setting) -> str:
    """A positive number whose logarithm is added to the linear predictor: person-years, say."""
    name = options.text("exposure")
    if name:
        if family != "poisson":
            options.fault(f"'exposure' belongs to counts, and the family is {family}", "Write `offset:`, or `family: poisson`.")
        _positive(name, "exposure", options, formula, setting)
    return name


def _weights(options: Options, formula: Formula, setting: Setting) -> str:
    name = options.text("weights")
    if name:
        variable = _positive(name, "weights", options, formula, setting)
        if options.given.get("weights_are") == "frequency" and variable.type != "integer":
            options.fault(f"frequency weights count, and {name!r} is a {variable.type}", "Declare it as an integer.")
    return name


def _kind_of_weights(options: Options) -> str:
    """What a weight of 2 means decides the standard errors, so nothing is assumed."""
    if not options.text("weights"):
        if "weights_are" in options.given:
            options.fault("'weights_are' stands without 'weights'", "Write `weights:` and a variable, or take it out.")
        return ""
    return options.choice("weights_are", WEIGHTS_ARE)


def _positive(name: str, what: str, options: Options, formula: Formula, setting: Setting) -> Variable:
    if name in formula.variables:
        options.fault(f"{what} {name!r} stands in the formula `{formula.text}` too", "Take one of the two out.")
    variable = known(name, setting.dictionary, f"{what}: {name}")
    if variable.type not in ("number", "integer"):
        options.fault(f"{what} {name!r} is a {variable.type}", "Name a number; derive one if need be.")
    if not float(ranged(variable, f"{what}: {name}").minimum or 0) > 0:
        options.fault(f"{what} {name!r} need a range above 0", "Write a `minimum` above 0 in the dictionary.")
    return variable


def local(spec: GlmSpec) -> GlmSpec:
    """The same analysis with the formula of one site's own model."""
    return replace(spec, formula=parse(spec.local_formula))


def _response(variable: Variable, family: str, where: str) -> None:
    """The response fits the family."""
    kind, name = variable.type, variable.name

    def fault(what: str, instead: str) -> StudyInvalid:
        return StudyInvalid(f"`{where}` with family {family}: {name!r} {what}", help=instead, variable=name)

    if family == "binomial":
        if kind == "boolean" or (kind == "category" and len(variable.levels) == 2):
            return
        if kind == "category":
            raise fault(f"has {len(variable.levels)} codes", f'Derive a boolean, such as {name} == "{variable.levels[0]}".')
        if kind == "integer" and variable.minimum == 0 and variable.maximum == 1:
            return
        raise fault(f"is a {kind} that is not 0 or 1", f"Derive a boolean, such as {name} > 0.")
    if kind not in ("number", "integer"):
        raise fault(f"is a {kind}", "Name a number, or write `family: binomial` for an outcome that happens or not.")
    ranged(variable, where)
    if family == "poisson" and (kind != "integer" or float(variable.minimum or 0) < 0):
        raise fault("is not a count", "Declare it as an integer with minimum 0, or write `family: gaussian`.")


def most_response(spec: GlmSpec, centre: float, unit: float) -> float:
    """The largest absolute value of the (scaled) response that the dictionary permits."""
    variable = spec.setting.dictionary[spec.response]
    if spec.family == "binomial":
        return 1.0
    low, high = float(variable.minimum or 0), float(variable.maximum or 0)
    return max(abs(low - centre), abs(high - centre)) / unit


def most_offset(spec: GlmSpec, unit: float) -> float:
    """The largest absolute value of (scaled) offset and logarithm of the exposure together."""
    most = spec.setting.dictionary[spec.offset].bound if spec.offset else 0.0
    if spec.exposure:
        variable = spec.setting.dictionary[spec.exposure]
        most += max(abs(math.log(float(variable.minimum or 1))), abs(math.log(float(variable.maximum or 1))))
    return most / unit


def least_and_most_weight(spec: GlmSpec) -> tuple[float, float]:
    """The range of the weights; (1, 1) without."""
    if not spec.weights:
        return 1.0, 1.0
    variable = spec.setting.dictionary[spec.weights]
    return float(variable.minimum or 1), float(variable.maximum or 1)
