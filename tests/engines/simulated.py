"""A study over the breast data for the tests of simulations. Not a test module."""

from __future__ import annotations

from typing import Any

from fivefold.algorithms.method import Setting
from fivefold.study.definition import Agreements, Analysis, Cohort, Envelope, Lead, Outputs, Privacy, Study
from tests.algorithms.training_data import BREAST


def study(setting: Setting, *analyses: Analysis, **changes: Any) -> Study:
    given: dict[str, Any] = {
        "title": "Simulated", "question": "", "lead": Lead("Lead", "Institute", "00"), "sites": (),
        "dictionary": setting.dictionary, "person": "patient", "cohort": Cohort(),
        "variables": dict.fromkeys(setting.dictionary.variables, "used"), "derived": (), "analyses": analyses,
        "envelope": Envelope(), "privacy": Privacy(), "outputs": Outputs(), "agreements": Agreements("", "", "2035-12-31"),
        "seed": 3,
    }  # fmt: skip
    return Study(**{**given, **changes})


def training(method: str = "fedavg", **options: Any) -> Analysis:
    return Analysis("training", method, BREAST, options={"rounds": 3, "evaluate_every": 0, **options})
