"""Another version of a study: without some variables or analyses, with more noise, with fewer rounds. For all sites alike.

A version is a study of its own, with a digest of its own: every custodian approves it anew. What cannot be left out without
changing who is in the cohort, or what a formula explains, is left to the lead.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fivefold.errors import StudyInvalid
from fivefold.study.definition import Analysis, Study

ITERATED = frozenset({"glm", "cox"})
"""Methods whose rounds `max_iterations` bounds, whether or not the study says so."""
BY_HAND = "Change the study file by hand, and sign it anew."


def without_variables(study: Study, names: Collection[str]) -> Study:
    """The study in which nothing reads these variables: terms of formulas, described variables, tables and grids go; an
    analysis in which nothing is left goes, too.

    Raises `StudyInvalid` where cohort, derived variables, subgroups or an outcome need one, or no analysis is left.
    """
    said = [*study.cohort.include, *study.cohort.exclude, study.cohort.index_date or "", *(d.expression for d in study.derived)]
    said += [a.subgroup for a in study.analyses]
    needed = next((n for n in names if any(_reads(text, n) for text in said)), None)
    if needed is not None:
        raise StudyInvalid(f"cohort, derived variables or a subgroup need {needed}", help=BY_HAND)
    kept = [a for a in (_without(a, names) for a in study.analyses) if a is not None]
    if not kept:
        raise StudyInvalid("no analysis is left without these variables", help=BY_HAND)
    envelope = dataclasses.replace(
        study.envelope, variables=tuple(v for v in study.envelope.variables if v not in names),
        subgroups=tuple(s for s in study.envelope.subgroups if not any(_reads(s, n) for n in names)),
    )  # fmt: skip
    variables = {n: why for n, why in study.variables.items() if n not in names}
    return dataclasses.replace(study, variables=variables, analyses=tuple(kept), envelope=envelope)


def kept_out(study: Study, site: str, names: Collection[str], variables: Collection[str]) -> Study:
    """The study in which a site takes no part in the analyses of these names, nor in those that read these variables: they name
    the sites that do. Raises `StudyInvalid` where there is none such."""
    hit = {a.name for a in study.analyses if a.name in names or any(_mentions(a, v) for v in variables)}
    if not hit:
        raise StudyInvalid("there is no analysis to leave the site out of", help=BY_HAND)
    others = {a.name: tuple(s for s in a.sites or [s.name for s in study.sites] if s != site) for a in study.analyses}
    analyses = tuple(dataclasses.replace(a, sites=others[a.name]) if a.name in hit else a for a in study.analyses)
    return dataclasses.replace(study, analyses=analyses)


def _mentions(analysis: Analysis, name: str) -> bool:
    return _without(analysis, [name]) != analysis or _reads(analysis.subgroup, name)


def without_analyses(study: Study, names: Collection[str]) -> Study:
    """The study without these analyses. Raises `StudyInvalid` where none is left."""
    kept = tuple(a for a in study.analyses if a.name not in names)
    if not kept:
        raise StudyInvalid("no analysis is left", help=BY_HAND)
    return dataclasses.replace(study, analyses=kept)


def with_noise(study: Study, multiplier: float) -> Study:
    """The study with at least this noise multiplier. Raises `StudyInvalid` for one without noise."""
    noise = study.privacy.differential_privacy
    if noise is None:
        raise StudyInvalid("the study has no noise that could grow", help=BY_HAND)
    more = dataclasses.replace(noise, noise_multiplier=max(multiplier, noise.noise_multiplier))
    return dataclasses.replace(study, privacy=dataclasses.replace(study.privacy, differential_privacy=more))


def with_rounds(study: Study, most: int) -> Study:
    """The study in which no method goes on for more rounds (`rounds`, `max_iterations`) than this."""
    return dataclasses.replace(study, analyses=tuple(_bounded(a, most) for a in study.analyses))


def _bounded(analysis: Analysis, most: int) -> Analysis:
    options = dict(analysis.options)
    for key in ("rounds", "max_iterations"):
        if isinstance(options.get(key), int):
            options[key] = min(options[key], most)
    if analysis.method in ITERATED and "max_iterations" not in options and options.get("family") != "gaussian":
        options["max_iterations"] = min(25, most)
    return dataclasses.replace(analysis, options=dict(sorted(options.items())))


def _without(analysis: Analysis, names: Collection[str]) -> Analysis | None:
    """An analysis that reads none of these; None where nothing is left of it."""
    variables = tuple(v for v in analysis.variables if v not in names)
    options = {k: v for k, v in ((k, _pruned(v, names)) for k, v in analysis.options.items()) if v not in ((), {})}
    if analysis.variables and not variables:
        return None
    formula = analysis.formula
    if any(_reads(formula, n) for n in names):
        left, _, right = formula.partition("~")
        if any(_reads(left, n) for n in names):
            return None
        terms = [t for t in _terms(right) if not any(_reads(t, n) for n in names)]
        if not terms:
            return None
        formula = f"{left.strip()} ~ {' + '.join(terms)}"
    return dataclasses.replace(analysis, variables=variables, formula=formula, options=options)


def _pruned(value: Any, names: Collection[str]) -> Any:
    """An option without what names one of these: keys, texts, tables with one of them as an axis."""
    if isinstance(value, Mapping):
        return {k: _pruned(v, names) for k, v in value.items() if k not in names}
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(v, str) and v in names for v in value):
            return tuple(v for v in value if v not in names) if len(value) != 2 else ()
        return tuple(p for p in (_pruned(v, names) for v in value) if p != ())
    return value


def _terms(right: str) -> list[str]:
    """The terms of a formula's right side, at its outermost plus signs."""
    terms, depth, start = [], 0, 0
    for i, c in enumerate(right):
        depth += (c == "(") - (c == ")")
        if c == "+" and depth == 0:
            terms.append(right[start:i].strip())
            start = i + 1
    return [*terms, right[start:].strip()]


def _reads(text: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text) is not None
