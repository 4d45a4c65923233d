"""What the evidence page of a run, a study or a package is made from; all of it verified."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fivefold.coordinator.package import held_package, package_of
from fivefold.coordinator.package_check import evidence_in, outer, study_of
from fivefold.coordinator.recall import why_not
from fivefold.coordinator.release_crate import disclosure_of, source_of, times_of
from fivefold.coordinator.run_record import STUDY_FILE
from fivefold.errors import OutputHeld
from fivefold.records import audit
from fivefold.records.bag import payload_of, require_whole
from fivefold.records.five_safes_record import NOT_CHECKED, Package
from fivefold.records.validation import crate_files
from fivefold.study.digest import load_signed


def newest_run(path: Path) -> Path:
    """The run folder itself; or, of a study (its file or its folder), the newest run that has ended. Raises `OutputHeld`."""
    if (path / "run.id").is_file():
        return path
    if not path.exists():
        raise OutputHeld(f"there is no {path}", help="Name a packed crate, a run's folder, or a study.")
    folder = path if path.is_dir() else path.parent
    ended = [f.parent for f in folder.glob("runs/*/audit.jsonl") if (f.parent / "run.id").is_file()]
    if not ended:
        raise OutputHeld(f"{path} has no run yet", help="Run the study first: `fivefold run STUDY`.")
    return max(ended, key=lambda f: (f / "audit.jsonl").stat().st_mtime)


def of_run(run: Path, evidence: Sequence[bytes]) -> Package:
    """The evidence of a run: of its newest release, or of a rehearsal as it lies open; of results that are held, all but them.
    Raises as `package.build` does."""
    found = load_signed(run / STUDY_FILE)
    with tempfile.TemporaryDirectory(prefix="fivefold-evidence-") as staging:
        try:
            source = source_of(run, found, 0, Path(staging))
        except OutputHeld as held:
            return held_package(run, found, evidence, f"The results are held: {held.message}")
        return package_of(run, source, found, evidence)


def of_package(path: Path) -> Package:
    """The evidence in a packed crate. Raises `CrateInvalid` where it was changed."""
    require_whole(path)
    crate, found, inside = outer(path), study_of(path), payload_of(path)
    log = audit.verify(inside / "run" / "audit.jsonl")
    times, checked = times_of(inside / "run"), inside / "disclosure"
    return Package(
        study=found.study,
        digest=found.digest,
        run=str(crate.get("#value-run").get("value", "")),
        engine=times.engine,
        software=str(crate.get("#fivefold").get("softwareVersion", "")),
        started=times.started,
        ended=times.ended,
        completed=True,
        sites=tuple(evidence_in(path)),
        parts=tuple(crate_files(inside / "run")),
        built=str(crate.root.get("datePublished", "")),
        disclosure=disclosure_of(checked) if (checked / "release.json").is_file() else NOT_CHECKED,
        recalled=why_not(path),
        log=(log.entries, log.head),
    )
