"""The automatic checks over what is proposed for release: each analysis by itself, then all together beside what was released.

A check never decides. It says pass, review or fail by rule; a person decides. Two kinds of failure bind the persons, too:
counts that together with earlier releases would tell a few persons apart, and a site's objection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fivefold.disclosure.differencing import judge
from fivefold.disclosure.report import Finding, OutputReport, Report, Rules
from fivefold.disclosure.tables import Count, CountTable
from fivefold.governance.output_counts import Told, cell_of, curves, levels_of, told
from fivefold.governance.output_forms import Form, concentrated, few, shaped, without_counts
from fivefold.protocol.objections import MEMBERSHIP, UNTESTED, Objections
from fivefold.protocol.results import Result, Scalar
from fivefold.study.definition import Analysis, Study

TYPES = {"statistics": "table", "kaplan_meier": "survival", "cox": "regression", "glm": "regression"}
KNOWN_TABLES = {
    "numbers", "quantiles", "categories", "curves", "groups", "log_rank", "log_rank_groups", "coefficients", "effects", "tests",
    "proportional_hazards", "heterogeneity", "weights",
}  # fmt: skip
REMARKED = {
    UNTESTED: "nobody was held out there, or too few to tell",
    "k-anonymity": "few persons share a prediction, as with most models",
    "class-disclosure": "all who share a prediction share the outcome, as with most models",
    "smallest-class": "an outcome has few persons",
}
NEEDS_NOISE = "a cohort that is not made of declared categories cannot be compared exactly: it needs differential privacy"


@dataclass(frozen=True)
class Proposal:
    """What would be released: each analysis in its form, the counts that each tells, and the report on all; and the models that
    sites can attack."""

    results: Mapping[str, Result]
    told: Mapping[str, tuple[Count, ...]]
    report: Report
    models: Mapping[str, bytes]

    @property
    def counts(self) -> tuple[Count, ...]:
        return tuple(c for counts in self.told.values() for c in counts)


def rules_of(study: Study) -> Rules:
    """The rules of a study: its own minima, and the usual ones beside."""
    return Rules(threshold=study.privacy.minimum_persons, sites=study.privacy.minimum_sites)


def propose(
    study: Study,
    results: Mapping[str, Result],
    form: Form,
    *,
    before: Sequence[Count] = (),
    objections: Objections | None = None,
    files: Mapping[str, Sequence[str]] | None = None,
    models: Mapping[str, bytes] | None = None,
) -> Proposal:
    """The results in a form, checked. `before`: the counts of earlier releases of the same persons; `objections`: what the
    sites say, None where they were not asked; `files`: the tables' file names by analysis; `models`: the trained
    models that sites can attack, as files by analysis."""
    rules = rules_of(study)
    base = rules.threshold if form == "rounded" else 1
    by_name = {a.name: a for a in study.analyses}
    shown: dict[str, Result] = {}
    tells_of: dict[str, tuple[Count, ...]] = {}
    counts: list[Count] = []
    large: list[CountTable] = []
    reports = []
    levels = levels_of(study)
    noisy = study.privacy.differential_privacy is not None
    for number, (name, result) in enumerate(results.items()):
        analysis = by_name[name]
        it = shaped(study, analysis, result, form, rules.threshold)
        tells = Told((), {}, True) if noisy else told(study, analysis, it, base)
        if form != "as_is" and not judge([*before, *counts, *tells.counts], levels, rules.threshold).permitted:
            bare = without_counts(it)
            less = told(study, analysis, bare, base)
            if judge([*before, *counts, *less.counts], levels, rules.threshold).permitted:
                it, tells = bare, less
        shown[name], tells_of[name] = it, tells.counts
        counts += tells.counts
        whole = {t.name: t for t in told(study, analysis, result).tables.values()} if tells.large else {}
        large += [replace(t, known=whole[t.name].counts if base == 1 else None) for t in tells.large]
        found = tuple(checked(study, analysis, it, tells, rules, result, tried=name in (models or {})))
        properties: dict[str, Any] = {
            "method": analysis.method,
            "analysis": name,
            "form": form,
            "variables": _variables(analysis),
        }
        uid, kind = f"output_{number}", TYPES.get(analysis.method, "custom")
        reports.append(OutputReport(uid, kind, _command(analysis), properties, tuple((files or {}).get(name, ())), found))
    together = tuple(_together(study, counts, large, before, rules, objections))
    return Proposal(shown, tells_of, Report(tuple(reports), together), dict(models or {}))


def checked(
    study: Study, analysis: Analysis, result: Result, tells: Told, rules: Rules, whole: Result, *, tried: bool = False
) -> Iterator[Finding]:
    """Every rule, on one analysis as it would be shown; `whole` is all that is known of it, of which no number is told.
    `tried`: the sites can attack its model."""
    sites = len(result.sites)
    yield Finding(
        "sites", "pass" if sites >= rules.sites else "fail", f"sites={sites} {_than(sites, rules.sites)} {rules.sites}"
    )
    yield from _counted(result, rules)
    for name, table in tells.tables.items():
        yield from _table(name, table, rules)
    if analysis.method in ("cox", "glm"):
        yield from _regression(result, rules, whole.facts.get("persons"))
    if "weights" in result.tables:
        yield from _model(study, analysis, result, rules, whole.facts.get("persons"), tried=tried)
    if "curves" in result.tables:
        yield from _curves(result, rules)
    if "baseline" in result.tables:
        yield Finding("event-times", "fail", "event-times: the baseline hazard names the times of single events", "baseline")
    unknown = [t for t in result.tables if t not in KNOWN_TABLES and t not in tells.tables and t != "baseline"]
    for name in unknown:
        yield Finding("unknown", "review", f"{name}: no rule reads this table", name)
    if "site_estimates" in result.tables:
        yield Finding("site-totals", "review", "site_estimates: one site's own estimates; its approval has to permit it")
    if not tells.linear and study.privacy.differential_privacy is None:
        other = cell_of(analysis.subgroup, study.phenotypes) is None
        yield Finding("differencing", "fail" if other else "review", f"differencing: {NEEDS_NOISE}")


def _counted(result: Result, rules: Rules) -> Iterator[Finding]:
    """Single numbers of persons: none in 1..threshold-1."""
    low = [
        name
        for name, value in result.facts.items()
        if (name in ("persons", "rows", "events") or name.startswith("missing_"))
        and isinstance(value, (int, float))
        and 0 < value < rules.threshold
    ]
    if low:
        yield Finding("threshold", "fail", f"threshold: {', '.join(low)} below {rules.threshold}")
    table = result.tables.get("numbers")
    for column in ("persons", "n", "missing") if table is not None else ():
        assert table is not None
        values = [v if isinstance(v, (int, float)) else 0 for v in table.column(column)]
        at = tuple((i, table.columns.index(column)) for i, v in enumerate(values) if 0 < v < rules.threshold)
        if at:
            yield Finding("threshold", "fail", f"threshold: {len(at)} cells may need suppressing", "numbers", at)


def _table(name: str, table: Any, rules: Rules) -> Iterator[Finding]:
    """A cross table: small cells, zeros, a line all in one cell."""
    low = few(table, rules.threshold)
    if low:
        yield Finding("threshold", "fail", f"threshold: {len(low)} cells may need suppressing", name, tuple(low))
    else:
        yield Finding("threshold", "pass", f"threshold: every cell of {name} has {rules.threshold} persons, none, or is hidden")
    same = tuple(tuple(int(i) for i in at) for at in np.argwhere(concentrated(table.counts)))
    if same:
        words = f"all-values-are-same: {len(same)} cells hold their whole line (class disclosure)"
        yield Finding("all-values-are-same", "fail", words, name, same)
    zeros = int((table.counts == 0).sum())
    if zeros:
        yield Finding("zeros", "review", f"zeros: {zeros} cells of {name} are empty: is that a secret of a whole class?", name)


def _regression(result: Result, rules: Rules, persons: Scalar) -> Iterator[Finding]:
    """Degrees of freedom, and parameters for each row."""
    table = result.tables.get("coefficients")
    if table is None:
        yield Finding("dof", "review", "no estimates: the model did not converge")
        return
    width = len(table.rows)
    if not isinstance(persons, (int, float)):
        yield Finding("dof", "review", f"dof: {width} parameters; the number of persons is not known")
        return
    shown, dof = result.facts.get("persons") == persons, int(persons) - width
    words = f"dof{f'={dof}' if shown else ''} {_than(dof, rules.dof)} {rules.dof}"
    yield Finding("dof", "pass" if dof >= rules.dof else "fail", words)
    fits = width <= rules.parameters * persons
    words = f"parameters per row {'<=' if fits else '>'} {rules.parameters}"
    yield Finding("parameters", "pass" if fits else "fail", words)


def _model(
    study: Study, analysis: Analysis, result: Result, rules: Rules, persons: Scalar, *, tried: bool
) -> Iterator[Finding]:
    """A trained model: whether it has room to know persons by heart, and whether the sites can try (`site/memorisation.py`)."""
    if study.privacy.differential_privacy is not None:
        yield Finding("parameters", "pass", "parameters: noise bounds what the model can hold of anybody", "weights")
    elif not isinstance(persons, (int, float)) or not isinstance(width := result.facts.get("weights"), int):
        yield Finding("parameters", "review", "parameters: the number of persons is not known", "weights")
    else:
        fits = width <= rules.parameters * persons
        words = f"parameters per person {'<=' if fits else '>'} {rules.parameters}"
        yield Finding(
            "parameters", "pass" if fits else "fail", words + ("" if fits else ": room to know them by heart"), "weights"
        )
    if not analysis.options.get("holdout"):
        yield Finding(MEMBERSHIP, "review", f"{MEMBERSHIP}: nobody was held out, so that no site can try it", "weights")
    elif not tried:
        yield Finding(MEMBERSHIP, "review", f"{MEMBERSHIP}: there is no whole model that a site could try", "weights")
    else:
        yield Finding(MEMBERSHIP, "pass", f"{MEMBERSHIP}: each site tries it on its own persons, and objects", "weights")


def _curves(result: Result, rules: Rules) -> Iterator[Finding]:
    """A survival curve: events and persons at risk in every interval; one or two events at a time name a time of death."""
    rows = [(i, r) for lines in curves(result).values() for i, r in enumerate(lines)]
    for column, words in (("events", "events"), ("censored", "censored persons"), ("at_risk", "persons at risk")):
        low = tuple((i, 0) for i, r in rows if r[column] is not None and 0 < r[column] < rules.threshold)
        if low:
            said = f"survival: {len(low)} intervals with fewer than {rules.threshold} {words}"
            yield Finding("event-times" if column == "events" else "survival", "fail", said, "curves", low)
    if not rows:
        yield Finding("survival", "review", "survival: no interval holds enough events, so no curve is left", "curves")


def _together(
    study: Study,
    counts: Sequence[Count],
    large: Sequence[CountTable],
    before: Sequence[Count],
    rules: Rules,
    objections: Objections | None,
) -> Iterator[Finding]:
    if study.privacy.differential_privacy is not None:
        yield Finding(
            "differencing", "pass", "differencing: every answer has noise; differential privacy holds for all together"
        )
        yield from _sites(objections)
        return
    verdict = judge([*before, *counts], levels_of(study), rules.threshold, large)
    words = f"differencing: {verdict.why or 'no sum or difference of what is released tells a few persons apart'}"
    yield Finding("differencing", "pass" if verdict.permitted else "fail", words, binding=True)
    yield from _sites(objections)


def _sites(objections: Objections | None) -> Iterator[Finding]:
    if objections is None:
        yield Finding("nk-rule, p-ratio", "fail", "sites: they have not been asked for objections")
        return
    free = not objections.objecting and not objections.missing
    yield Finding("nk-rule, p-ratio", "pass" if free else "fail", f"sites: {objections}", binding=not free)
    for remark, sites in objections.remarks.items():
        if sites:
            yield Finding(remark, "review", f"{remark}: at {sites} of {objections.sites} sites; {REMARKED[remark]}")


def _than(value: int, least: int) -> str:
    return ">=" if value >= least else "<"


def _command(analysis: Analysis) -> str:
    what = analysis.formula or ", ".join(analysis.variables)
    return f"{analysis.method}({what})" + (f" in {analysis.subgroup}" if analysis.subgroup else "")


def _variables(analysis: Analysis) -> list[str]:
    from fivefold.study.envelope import reads

    return list(reads(analysis))
