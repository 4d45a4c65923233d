"""A crate of a run made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fivefold.records.provenance import AnalysisRecord, LeadRecord, RunRecord, SiteRecord
from fivefold.records.validation import read_crate
from tests.records.run_values import run_record


def entities(folder: Path) -> dict[str, dict[str, Any]]:
    return read_crate(folder)


def types(entity: dict[str, Any]) -> list[str]:
    return [entity["@type"]] if isinstance(entity["@type"], str) else entity["@type"]


def failed(folder: Path) -> RunRecord:
    """A run that a refusal ended in its first analysis: no results."""
    whole = run_record(folder)
    started = AnalysisRecord("cox", "cox", whole.analyses[0].rounds[:1])
    return replace(whole, analyses=(started,), status="failed", error="TooFewPersons", rehearsal=False, engine="flower")


def strange_names(folder: Path) -> RunRecord:
    """Names with spaces, umlauts, quotes and markup; two that differ only there; a free licence text; no ORCID."""
    whole = run_record(folder)
    names = ("St. Göran", "St. Goran", "St  Göran", '"><script>alert(1)</script>', "a/b", "a b")
    analyses = tuple(replace(whole.analyses[0], name=name, method="kaplan_meier") for name in names)
    return replace(
        whole,
        title='<b>Title</b> & "more"',
        lead=LeadRecord("O'Neill <x@y>", "", ""),
        licence="On request only: ask the lead",
        sites=tuple(SiteRecord(name) for name in names),
        analyses=analyses,
        privacy={"minimum persons!": 5, "differential privacy": None},
    )
