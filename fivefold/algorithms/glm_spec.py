"""A GLM's options, read and checked once: what is asked for, or a sentence that says what to write."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fivefold.algorithms.design import Design, design, known, ranged
from fivefold.algorithms.glm_families import FAMILIES
from fivefold.algorithms.method import Setting
from fivefold.algorithms.options import Options
from fivefold.errors import FormulaInvalid, StudyInvalid
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.formula import SITE, Formula, Survival, parse

OPTIONS = ("family", "offset", "max_iterations", "tolerance", "confidence", "heterogeneity")


@dataclass(frozen=True)
class GlmSpec:
    """What `parse_glm` makes of an analysis. `offset` is a variable's name or ""."""

    name: str
    formula: Formula
    family: str
    offset: str
    subgroup: str
    max_iterations: int
    tolerance: float
    confidence: float
    heterogeneity: bool
    setting: Setting

    @property
    def response(self) -> str:
        return str(self.formula.response)

    @property
    def variables(self) -> tuple[str, ...]:
        """What must be known of a row."""
        return tuple(dict.fromkeys((*self.formula.variables, *((self.offset,) if self.offset else ()))))

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
        wanted = (*self.design(self.setting.sites).numbers, *numeric, *((self.offset,) if self.offset else ()))
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
        subgroup=analysis.subgroup,
        max_iterations=options.integer("max_iterations", 25, 1, 100),
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
    return spec


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
    return spec.setting.dictionary[spec.offset].bound / unit if spec.offset else 0.0
