"""A study and a policy of which a test writes only what it is about; the rest is plain."""

from __future__ import annotations

from datetime import date
from typing import Any

from fivefold.governance.policy import Policy
from fivefold.study.definition import (
    Agreements,
    Analysis,
    Cohort,
    Envelope,
    Lead,
    Outputs,
    Privacy,
    Study,
    StudySite,
)
from fivefold.study.dictionary import Dictionary

NO_KEY = "0" * 64


def sites_of(*names: str) -> tuple[StudySite, ...]:
    """Sites without keys."""
    return tuple(StudySite(name, NO_KEY) for name in names)


def study_of(*analyses: Analysis, **changes: Any) -> Study:
    """The study of these analyses, with other parts changed; all variables of its dictionary are used."""
    dictionary = changes.get("dictionary", Dictionary("d", "1", {}))
    plain: dict[str, Any] = {
        "title": "T", "question": "Q", "lead": Lead("L", "O", NO_KEY), "sites": sites_of("a", "b", "c"),
        "dictionary": dictionary, "person": "patient", "cohort": Cohort(),
        "variables": dict.fromkeys(dictionary.variables, "why"), "derived": (), "analyses": analyses, "envelope": Envelope(),
        "privacy": Privacy(), "outputs": Outputs(), "agreements": Agreements("E", "P", "2030-01-01"),
    }  # fmt: skip
    return Study(**plain | changes)


def policy_of(**changes: Any) -> Policy:
    """The policy of the site `a`, until 2030."""
    who = {"name": "C", "key": NO_KEY, "from": date(2026, 1, 1), "until": date(2030, 1, 1)}
    plain = {"version": 1, "site": "a", "asset": "x", "expires": date(2030, 1, 1), "custodians": [who]}
    return Policy.model_validate(plain | changes)
