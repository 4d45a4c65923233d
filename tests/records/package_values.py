"""A package as values, and its crate on disk in a bag, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fivefold.records.bag import make_bag
from fivefold.records.five_safes_crate import crate_of, external_identifier
from fivefold.records.five_safes_record import Disclosure, Package, SiteEvidence
from fivefold.records.validation import write_metadata
from fivefold.study.definition import Agreements, Cohort, Envelope, Lead, Outputs, Privacy, Study, StudySite
from fivefold.study.dictionary import Dictionary

KEY = bytes(range(32))


def study() -> Study:
    return Study(
        title="Survival in advanced lung cancer",
        question="Do women with advanced lung cancer live longer than men?",
        lead=Lead("Ada Lead", "University of Example", "ab" * 32, "0000-0002-1825-0097"),
        sites=(StudySite("North", "01" * 32, "North Hospital"), StudySite("St. Göran", "02" * 32)),
        dictionary=Dictionary("lung", "1.0", {}),
        person="patient",
        cohort=Cohort(("age >= 18",)),
        variables={"time": "how long a patient was followed", "sex": "<b>the</b> question"},
        derived=(),
        analyses=(),
        envelope=Envelope(),
        privacy=Privacy(),
        outputs=Outputs(("Hazard ratios",), "CC-BY-4.0"),
        agreements=Agreements("EC-2026-017", "Prognosis", "2030-12-31"),
        seed=7,
    )


def evidence(name: str, **more: Any) -> SiteEvidence:
    values: dict[str, Any] = {
        "site": name,
        "organisation": f"{name} Hospital",
        "custodian": f"Custodian of {name}",
        "custodian_key": "0a" * 32,
        "approved": "2026-11-20T10:00:00Z",
        "expires": "2030-12-31",
        "analyses": ("cox",),
        "policy_version": 2,
        "policy_digest": "0b" * 32,
        "commitment": "0c" * 32,
        "mapping": "0d" * 32,
        "log_entries": 12,
        "log_head": "0e" * 32,
        "document": b"{}",
    }
    return SiteEvidence(**values | more)


def package(**more: Any) -> Package:
    values: dict[str, Any] = {
        "study": study(),
        "digest": "cd" * 32,
        "run": "51a01d9ea848a9d9",
        "engine": "local",
        "software": "0.1.0",
        "started": "2026-11-24T15:00:00Z",
        "ended": "2026-11-24T15:00:09Z",
        "completed": True,
        "sites": (evidence("North"), evidence("St. Göran")),
        "parts": ("study.signed.json", "result.json", "tables/cox.coefficients.csv"),
        "built": "2026-11-24T16:00:00Z",
        "disclosure": Disclosure("completed", "Disclosure check", ("Chris Checker",), "2026-11-24T15:30:00Z"),
        "others": {"sign-offs/North.json": "What North signed"},
    }
    return Package(**values | more)


def bag(folder: Path, found: Package | None = None) -> Path:
    """The crate of a package as a bag, its files filled with their own names."""
    found = found or package()
    for path in [*(f"run/{p}" for p in found.parts), *found.others, "run/ro-crate-metadata.json"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, encoding="utf-8")
    write_metadata(folder, crate_of(found))
    make_bag(folder, {"External-Identifier": external_identifier(found.run)}, KEY, "lead")
    return folder
