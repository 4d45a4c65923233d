"""Safe data: only what the question needs, and in a fit state. Judged on the study before, and on the frozen rows' own report.

Minimisation is built in: a site freezes the variables that the study names and the rows that its cohort selects, and these
rules say so with their evidence. What the policy asks of quality and de-identification is a condition of reading the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fivefold.governance.policy import Decision, Policy
from fivefold.governance.safe_projects import file_digest
from fivefold.governance.study_check import used_variables
from fivefold.study.definition import Study

UNREADABLE = ("out_of_type", "out_of_range", "unknown_code", "not_finite")
"""What the quality report counts as no value of its variable, though a cell was there."""


def judge(
    policy: Policy, study: Study, *, folder: Path | None = None, report: Mapping[str, Any] | None = None
) -> list[Decision]:
    """What the site says to the study's data. `report` is the quality report of the rows that would be frozen
    (`data/quality.py`); before it is there, minimisation and statements alone are judged."""
    out = [*of_study(study)]
    if policy.data is not None and policy.data.deidentification is not None and folder is not None:
        out.append(_statement(policy, folder))
    return out if report is None else [*out, *_frozen(study, report), *_quality(policy, report)]


def of_study(study: Study) -> Iterator[Decision]:
    """Minimisation, as the study alone shows it."""
    used = set(used_variables(study))
    idle = [name for name in study.variables if name not in used]
    words = f"nothing uses the variable {idle[0]}" if idle else f"each of the {len(used)} variables is used"
    # A variable too many is worth a note to the lead; freezing it is still what the custodian approved.
    yield Decision(True, "data.minimum", 0, f"only the study's variables are frozen; {words}", ", ".join(study.variables))
    rules = [*study.cohort.include, *(f"not {c}" for c in study.cohort.exclude)]
    words = "only rows of the cohort are frozen" if rules else "the study selects every row that the site maps"
    yield Decision(True, "data.cohort", 0, words, "; ".join(rules))


def _statement(policy: Policy, folder: Path) -> Decision:
    assert policy.data is not None
    assert policy.data.deidentification is not None
    asked, rule = policy.data.deidentification, "data.deidentification"
    found, line = file_digest(folder / asked.file), policy.line(rule)
    if found is None:
        return Decision(False, rule, line, f"the statement of de-identification {asked.file} is not there")
    same = found == asked.sha256
    words = "is the one that the policy names" if same else "was changed since the policy was signed"
    return Decision(same, rule, line, f"the statement of de-identification {asked.file} {words}", f"sha256:{found}")


def _frozen(study: Study, report: Mapping[str, Any]) -> Iterator[Decision]:
    extra = [v["name"] for v in report["variables"] if v["name"] not in study.phenotypes]
    words = f"the variable {extra[0]} is not the study's" if extra else "the frozen variables are those that the study names"
    evidence = f"{report['rows_outside_cohort']} rows outside the cohort left out, {report['rows_opted_out']} of opt-outs"
    yield Decision(not extra, "data.minimum", 0, words, evidence)


def _quality(policy: Policy, report: Mapping[str, Any]) -> Iterator[Decision]:
    """At most so many percent of a variable's cells unreadable, or missing: the worst variable is named."""
    for rule, most, kinds in (
        ("data.unreadable", policy.data.unreadable if policy.data else None, UNREADABLE),
        ("data.missing", policy.data.missing if policy.data else None, ("missing", "missing_coded")),
    ):
        if most is None:
            continue
        worst, share = "", 0.0
        for variable in report["variables"]:
            part = 100 * sum(int(variable[k]) for k in kinds) / max(1, int(variable["rows"]))
            if part >= share:
                worst, share = variable["name"], part
        what = rule.partition(".")[2]
        words = f"at most {share:.1f} % of a variable's cells are {what} ({worst}); this site admits {most:g} %"
        yield Decision(share <= most, rule, policy.line(rule), words)
