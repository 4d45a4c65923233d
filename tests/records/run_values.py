"""A run as the coordinator knows it at its end, with its folder."""

from __future__ import annotations

from pathlib import Path

from fivefold.records.audit import AuditLog
from fivefold.records.provenance import AnalysisRecord, LeadRecord, RoundRecord, RunRecord, SiteRecord
from fivefold.results.write import write_result
from tests.results.result_values import SITES, results

KEY = bytes(range(32))
ROUNDS = (
    RoundRecord(1, ("cohort.count/1",), SITES),
    RoundRecord(2, ("cox.score_and_information/1", "cox.grid/1"), SITES),
    RoundRecord(3, ("cox.score_and_information/1",), SITES[:2], SITES[2:]),
)


def run_record(folder: Path, files: tuple[str, ...] = ()) -> RunRecord:
    """The record of a run over three sites, of which one dropped in the last round of every analysis."""
    stems = dict(zip(results(), ("sex-survival", "cox", "stats"), strict=True))
    analyses = tuple(
        AnalysisRecord(
            name,
            result.method,
            ROUNDS,
            title="Cox regression",
            paper="Cox, JRSS B 34, 1972",
            formula="Surv(time, status) ~ age + sex",
            files=tuple(f for f in files if f.split("/")[-1].startswith(f"{stems[name]}.")),
        )
        for name, result in results().items()
    )
    return RunRecord(
        run="20261124T150000Z-6f1c",
        title="Survival in advanced lung cancer",
        question="Do women with advanced lung cancer live longer than men?",
        lead=LeadRecord("Ada Lead", "University of Example", "0000-0002-1825-0097"),
        study_file="study.yaml",
        study_digest="ab" * 32,
        dictionary="lung",
        dictionary_version="1.0",
        dictionary_digest="cd" * 32,
        sites=tuple(SiteRecord(s, f"{s} Hospital", f"{i:02x}" * 32) for i, s in enumerate(SITES)),
        analyses=analyses,
        engine="local",
        software={"fivefold": "0.1.0", "numpy": "2.1.0", "python": "3.11.7"},
        started="2026-11-24T15:00:00Z",
        ended="2026-11-24T15:00:09Z",
        licence="CC-BY-4.0",
        privacy={"mode": "secure_sum", "adversary": "active", "minimum_persons": 5, "threshold": None},
        ethics="EC-2026-017",
        purpose="Prognosis",
        seed=7,
        rehearsal=True,
    )


def run_folder(folder: Path) -> RunRecord:
    """Write results, study file, journal and audit log of a run; its record."""
    files = write_result(folder, results(), {"seed": 7, "run": {"started": "2026-11-24T15:00:00Z"}})
    (folder / "study.yaml").write_text("title: Survival in advanced lung cancer\n", encoding="utf-8")
    (folder / "journal").mkdir()
    (folder / "journal" / "cox.journal").write_bytes(b"aggregates")
    with AuditLog(folder / "audit.jsonl", KEY, "coordinator") as log:
        log.write("run", sites=list(SITES))
    return run_record(folder, files)
