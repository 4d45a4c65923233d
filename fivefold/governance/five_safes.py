"""The Five Safes as a site asks them: one list of decisions, and the first that denies refuses.

Each Safe is a file of its own with one function `judge`; outputs are judged later, at the airlock (`safe_outputs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from fivefold.governance import safe_data, safe_people, safe_projects, safe_settings
from fivefold.governance.custody import Custody
from fivefold.governance.policy import Decision
from fivefold.governance.register import Register, register_of
from fivefold.governance.safe_settings import Surroundings
from fivefold.study.definition import Study

SAFES = {
    "projects": "Safe projects",
    "people": "Safe people",
    "settings": "Safe settings",
    "data": "Safe data",
}


def judge(
    folder: Path,
    custody: Custody,
    study: Study,
    digest: str,
    today: date,
    *,
    custodian: str = "",
    checkers: Sequence[tuple[str, str]] = (),
    around: Surroundings | None = None,
    report: Mapping[str, Any] | None = None,
) -> dict[str, list[Decision]]:
    """By Safe, everything that this site has to say to a study. Read from disk each time, so that a lapse or a revocation holds
    at once; no row is read. Raises `StatementInvalid` where register or reviews were altered."""
    policy, register = custody.policy, register_of(folder, custody, today)
    return {
        "projects": safe_projects.judge(policy, study, digest, today, folder=folder, register=register, custodian=custodian),
        "people": safe_people.judge(policy, study, register, today, custodian=custodian, checkers=checkers),
        "settings": safe_settings.judge(policy, study, around),
        "data": safe_data.judge(policy, study, folder=folder, report=report),
    }


def of_study(study: Study, today: date) -> dict[str, list[Decision]]:
    """What a lead can know before any site is asked: the study's own part of each Safe. No policy, register or row is read."""
    return {
        "projects": list(safe_projects.of_study(study, today)),
        "people": [safe_people.separated(study, Register({}), today)],
        "data": list(safe_data.of_study(study)),
    }


def first_objection(found: Mapping[str, Sequence[Decision]]) -> Decision | None:
    """The first decision that denies, in the order of the Safes."""
    return next((d for decisions in found.values() for d in decisions if not d.permit), None)


def enforce(found: Mapping[str, Sequence[Decision]]) -> None:
    """Nothing where every Safe permits. Raises `PolicyRefuses` that names the rule."""
    objection = first_objection(found)
    if objection is not None:
        objection.enforce()
