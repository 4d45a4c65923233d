"""A run folder and what its sites say of it → a signed Five Safes crate, packed as a bag. Everything is verified first."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import fivefold
from fivefold.auth.keys import public_of
from fivefold.coordinator.life import PROPOSAL
from fivefold.coordinator.release_crate import Source, journal_of, source_of, times_of
from fivefold.coordinator.run_record import STUDY_FILE, VARIATIONS
from fivefold.errors import CrateInvalid, KeyProblem, OutputHeld
from fivefold.governance.evidence import read_evidence
from fivefold.governance.proposals import read_proposal
from fivefold.governance.recalls import NOTICE, read_recall, recallers
from fivefold.governance.threats import as_json as threats_of
from fivefold.records import audit, sealed_journal
from fivefold.records.bag import make_bag
from fivefold.records.crate_graph import Crate
from fivefold.records.crate_names import slug
from fivefold.records.five_safes_crate import RUN, crate_of, external_identifier
from fivefold.records.five_safes_page import page
from fivefold.records.five_safes_record import Disclosure, Package, SiteEvidence
from fivefold.records.five_safes_rules import broken
from fivefold.records.validation import changed_files, crate_files, write_metadata
from fivefold.results.write import read_json
from fivefold.study.digest import SignedStudy, load_signed

Journal = Literal["sealed", "open", "none"]
THREATS = "threats.json"


def build(
    run: Path,
    out: Path,
    evidence: Sequence[bytes],
    private: bytes,
    *,
    journal: Journal = "sealed",
    coordinator: bytes | None = None,
    readers: Sequence[bytes] = (),
    release: int = 0,
    now: datetime | None = None,
) -> Path:
    """Pack a finished run into the folder `out`, which must not exist yet; the folder.

    What is packed is the release (0: the newest); a rehearsal of which nothing was released is packed as it lies open, with its
    disclosure check pending. `evidence`: what each site handed over (`fivefold site evidence`); every site whose answers are in
    a result must have done so. `private` signs the bag: the coordinator's key or the lead's. The journal is sealed for the
    `coordinator` (the run's own key), the study's output checkers and the `readers` (public keys).

    Raises `CrateInvalid` where a file of the run was changed, evidence is missing, or a rule of the profile would be broken;
    `OutputHeld` where nothing may be packed; `AuditBroken`; `StatementInvalid` for evidence that does not verify; `KeyProblem`.
    """
    if out.exists():
        raise CrateInvalid(f"{out} exists already, and a package is never overwritten", help="Name another with --out.")
    found = load_signed(run / STUDY_FILE)
    role = signers(run, found).get(public_of(private).hex())
    if role is None:
        raise KeyProblem(
            "the key that would sign is neither the lead's nor the coordinator's", help="Name the lead's with --key."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        (partial / RUN).mkdir()
        source = source_of(run, found, release, partial / RUN)
        package = package_of(run, source, found, evidence, now=now)
        if source.folder == run:
            _copy(run, partial / RUN, [*package.parts, "ro-crate-metadata.json", "ro-crate-preview.html"])
        for site in package.sites:
            _put(partial / _sign_off(site.site), site.document)
        for place, (data, _) in source.files.items():
            _put(partial / place, data)
        for path in sorted((run / VARIATIONS).glob("*.variation.json")):
            _put(partial / VARIATIONS / path.name, path.read_bytes())
            package.others[f"{VARIATIONS}/{path.name}"] = "A variation within the envelope, signed by the lead"
        _put(partial / THREATS, json.dumps(threats_of(found.study), indent=1, ensure_ascii=False).encode())
        package.others[THREATS] = "Threat by threat, which protection of the study covers it, and what is left open"
        if (run / PROPOSAL).exists():
            raw = (run / PROPOSAL).read_bytes()
            read_proposal(raw, found.study, found.digest)
            _put(partial / PROPOSAL, raw)
            package.others[PROPOSAL] = "The lead's signed proposal: which version, why, and the table of threats as it was then"
        if journal != "none":
            if journal == "open" and source.disclosure.status == "completed":
                raise OutputHeld(
                    "aggregates tell more than was released, so they travel sealed",
                    help="Leave --journal out (sealed), or say `--journal none`.",
                )
            place, data, words = _journal(run, found, journal, public_of(coordinator or private), readers)
            package.others[place] = words
            _put(partial / place, data)
        _put(partial / "ro-crate-preview.html", page(package).encode())
        metadata = crate_of(package)
        faults = broken(Crate.of(metadata), "MUST")
        if faults:
            raise CrateInvalid("; ".join(faults[:5]))
        write_metadata(partial, metadata)
        make_bag(partial, _info(package), private, role)
        partial.chmod(0o755)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def package_of(
    run: Path, source: Source, found: SignedStudy, evidence: Sequence[bytes], *, now: datetime | None = None
) -> Package:
    """What the crate of a run tells, all of it verified. Raises as `build` does."""
    changed = changed_files(source.folder)
    if changed:
        raise CrateInvalid("; ".join(changed[:5]), help="Take the files from a copy, or run the study again.")
    result = read_json(source.folder)
    if result["study"]["digest"] != found.digest:
        raise CrateInvalid("result.json is of another study than study.signed.json")
    sites = _sites(found, evidence, {name for analysis in result["analyses"] for name in analysis["sites"]})
    return replace(
        _package(run, found, sites, source.disclosure, now),
        completed=bool(result["analyses"]),
        parts=tuple(crate_files(source.folder)),
        others={
            **{_sign_off(s.site): f"What {s.site} signed: approvals, data commitment, log head" for s in sites},
            **{place: words for place, (_, words) in source.files.items()},
        },
    )


def held_package(run: Path, found: SignedStudy, evidence: Sequence[bytes], words: str) -> Package:
    """What may be told of a run of which nothing is released, or no longer: all but its results. `words` say why. It is for the
    evidence page, and never packed."""
    notices = [p / NOTICE for p in sorted((run / "released").glob("[0-9]*")) if (p / NOTICE).is_file()]
    recalled = [read_recall(p.read_bytes(), found.digest, recallers(found.study)).words for p in notices]
    package = _package(run, found, _sites(found, evidence, set()), Disclosure("pending", words), None)
    return replace(package, recalled="; ".join(recalled))


def _sites(found: SignedStudy, evidence: Sequence[bytes], answered: set[str]) -> tuple[SiteEvidence, ...]:
    """What the sites signed, in the study's order, verified. Raises `CrateInvalid` where one that answered has not."""
    sites = [read_evidence(raw, found.study, found.digest) for raw in evidence]
    missing = sorted(answered - {s.site for s in sites})
    if missing or len({s.site for s in sites}) != len(sites):
        raise CrateInvalid(
            f"there is no evidence of {', '.join(missing)}" if missing else "there is evidence of one site twice",
            help="Each site hands over its own: `fivefold site evidence STUDY`; name the files with --evidence.",
        )
    order = {s.name: i for i, s in enumerate(found.study.sites)}
    return tuple(sorted(sites, key=lambda s: order[s.site]))


def _package(
    run: Path, found: SignedStudy, sites: tuple[SiteEvidence, ...], disclosure: Disclosure, now: datetime | None
) -> Package:
    """A run's package without anything of its results."""
    times, log = times_of(run), audit.verify(run / "audit.jsonl")
    return Package(
        study=found.study,
        digest=found.digest,
        run=(run / "run.id").read_text("ascii").strip(),
        engine=times.engine,
        software=fivefold.__version__,
        started=times.started,
        ended=times.ended,
        completed=True,
        sites=sites,
        parts=(),
        built=(now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        disclosure=disclosure,
        log=(log.entries, log.head),
    )


def _journal(
    run: Path, found: SignedStudy, how: Journal, coordinator: bytes, readers: Sequence[bytes]
) -> tuple[str, bytes, str]:
    """The aggregates as a file of the package: path, bytes and a sentence."""
    aggregates = journal_of(run)
    if how == "open":
        return sealed_journal.OPEN, sealed_journal.packed(aggregates), "The aggregates of every round, for a replay"
    checkers = [bytes.fromhex(c.public_key) for c in found.study.outputs.checkers]
    data = sealed_journal.sealed(aggregates, [coordinator, *checkers, *readers])
    words = "The aggregates of every round, sealed, for a replay by coordinator, checker or auditor"
    return sealed_journal.SEALED, data, words


def _info(package: Package) -> dict[str, str]:
    lead = package.study.lead
    return {
        "Source-Organization": lead.organisation or lead.name,
        "Contact-Name": lead.name,
        "External-Description": package.study.title,
        "External-Identifier": external_identifier(package.run),
        "Bagging-Date": package.built[:10],
        "Bag-Software-Agent": f"fivefold {package.software}",
        "Internal-Sender-Identifier": f"run {package.run}, study sha256:{package.digest}",
    }


def _copy(run: Path, target: Path, paths: Sequence[str]) -> None:
    for path in dict.fromkeys(paths):
        _put(target / path, (run / path).read_bytes())


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _sign_off(site: str) -> str:
    return f"sign-offs/{slug(site)}.json"


def signers(run: Path, found: SignedStudy) -> dict[str, str]:
    """Whose signature on a package means something: public key (hex) → role."""
    report = audit.verify(run / "audit.jsonl")
    return {found.study.lead.public_key: "lead"} | dict.fromkeys(report.keys, "coordinator")
