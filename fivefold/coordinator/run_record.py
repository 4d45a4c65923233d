"""What a run's crate tells, gathered from the signed study and the rounds: of the run itself, or of a release made from it."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fivefold
from fivefold.plugins import method
from fivefold.protocol.encoding import digest
from fivefold.records.provenance import AnalysisRecord, LeadRecord, RoundRecord, RunRecord, SiteRecord
from fivefold.results.guarantee import bounds, promise_of
from fivefold.study.definition import Analysis
from fivefold.study.digest import SignedStudy

STUDY_FILE = "study.signed.json"
VARIATIONS = "variations"


def record_of(
    found: SignedStudy,
    identity: str,
    engine: str,
    started: str,
    ended: str,
    rounds: Sequence[Mapping[str, Any]],
    written: Sequence[str],
    done: Sequence[Analysis],
    *,
    rehearsal: bool = True,
) -> RunRecord:
    """The record of a run. `rounds`: for each its `analysis`, `questions`, `answered` and `dropped`; `written`: the files of
    the results, by which each analysis in `done` is given its own."""
    study = found.study
    analyses = []
    for one in done:
        about = method(one.method)
        own = [r for r in rounds if r["analysis"] == one.name]
        numbered = tuple(RoundRecord(i, r["questions"], r["answered"], r["dropped"]) for i, r in enumerate(own, 1))
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", one.name)
        files = tuple(path for path in written if Path(path).name.startswith((f"{one.name}.", f"{stem}.")))
        analyses.append(AnalysisRecord(one.name, one.method, numbered, about.title, about.paper, one.formula, files))
    private = study.privacy
    return RunRecord(
        run=identity,
        title=study.title,
        question=study.question,
        lead=LeadRecord(study.lead.name, study.lead.organisation, study.lead.orcid),
        study_file=STUDY_FILE,
        study_digest=found.digest,
        dictionary=study.dictionary.name,
        dictionary_version=study.dictionary.version,
        dictionary_digest=digest(asdict(study.dictionary)).hex(),
        sites=tuple(SiteRecord(s.name, s.organisation, s.public_key) for s in study.sites),
        analyses=tuple(analyses),
        engine=engine,
        software={
            "fivefold": fivefold.__version__,
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "cryptography": version("cryptography"),
        },
        started=started,
        ended=ended,
        licence=study.outputs.licence,
        privacy={
            "mode": private.mode,
            "adversary": private.adversary,
            "minimum_sites": private.minimum_sites,
            "minimum_persons": private.minimum_persons,
            "differential_privacy": promise_of(private.differential_privacy, len(rounds), bounds(study, done))
            or "none: sums are exact",
        },
        ethics=study.agreements.ethics,
        purpose=study.agreements.purpose,
        seed=study.seed,
        rehearsal=rehearsal,
    )
