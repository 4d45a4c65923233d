"""How the entities of a crate are called: one identifier each, wherever it is spoken of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from fivefold.records.provenance import AnalysisRecord, RunRecord, SiteRecord


def main_id(record: RunRecord) -> str:
    return quote(record.study_file)


def lead_id(record: RunRecord) -> str:
    return f"https://orcid.org/{record.lead.orcid}" if record.lead.orcid else "#lead"


def site_name(site: SiteRecord) -> str:
    return site.organisation or site.name


def site_id(site: SiteRecord) -> str:
    return f"#site-{slug(site.name)}"


def site_action(site: SiteRecord) -> str:
    return f"#answers-{slug(site.name)}"


def analysis_action(analysis: AnalysisRecord) -> str:
    return f"#analysis-{slug(analysis.name)}"


def analysis_step(analysis: AnalysisRecord) -> str:
    return f"#step-{slug(analysis.name)}-analysis"


def method_id(analysis: AnalysisRecord) -> str:
    return f"#method-{slug(analysis.method)}"


def licence(record: RunRecord) -> dict[str, Any]:
    """The licence as an entity: of SPDX, at an address, or in words."""
    if re.fullmatch(r"[A-Za-z0-9.+-]+", record.licence):
        return {"@id": f"https://spdx.org/licenses/{record.licence}", "@type": "CreativeWork", "name": record.licence}
    if re.fullmatch(r"https?://[^\s<>\"]+", record.licence):
        return {"@id": record.licence, "@type": "CreativeWork", "name": record.licence}
    return {"@id": "#licence", "@type": "CreativeWork", "name": record.licence or "All rights reserved"}


def slug(text: str) -> str:
    """A fragment for an identifier. Whatever would be lost is kept apart by a digest, so that two names never meet in one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def refs(names: Iterable[str]) -> Any:
    """References: a single one stands alone, as consumers of crates expect."""
    found: list[Mapping[str, str]] = [{"@id": name} for name in dict.fromkeys(names)]
    return found[0] if len(found) == 1 else found
