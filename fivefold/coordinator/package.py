"""A run folder and what its sites say of it → a signed Five Safes crate, packed as a bag. Everything is verified first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import fivefold
from fivefold.auth.keys import public_of
from fivefold.errors import CrateInvalid
from fivefold.governance.evidence import read_evidence
from fivefold.records import audit, sealed_journal
from fivefold.records.bag import make_bag
from fivefold.records.crate import slug
from fivefold.records.crate_graph import Crate
from fivefold.records.five_safes_crate import RUN, crate_of, external_identifier
from fivefold.records.five_safes_page import page
from fivefold.records.five_safes_record import NOT_CHECKED, Disclosure, Package
from fivefold.records.five_safes_rules import broken
from fivefold.records.validation import changed_files, crate_files, write_metadata
from fivefold.results.write import read_json
from fivefold.study.digest import SignedStudy, load_signed

STUDY_FILE = "study.signed.json"
Journal = Literal["sealed", "open", "none"]


def build(
    run: Path,
    out: Path,
    evidence: Sequence[bytes],
    private: bytes,
    *,
    role: str = "coordinator",
    journal: Journal = "sealed",
    coordinator: bytes | None = None,
    readers: Sequence[bytes] = (),
    disclosure: Disclosure = NOT_CHECKED,
    now: datetime | None = None,
) -> Path:
    """Pack a finished run into the folder `out`, which must not exist yet; the folder.

    `evidence`: what each site handed over (`fivefold site evidence`); every site whose answers are in a result must have done
    so. `private` signs the bag, as `role`; the journal is sealed for
    the `coordinator` (the run's own key), the study's output checkers and the `readers` (public keys).

    Raises `CrateInvalid` where a file of the run was changed, evidence is missing, or a rule of the profile would be broken;
    `AuditBroken`; `StatementInvalid` for evidence that does not verify.
    """
    if out.exists():
        raise CrateInvalid(f"{out} exists already, and a package is never overwritten", help="Name another with --out.")
    found = load_signed(run / STUDY_FILE)
    package = package_of(run, found, evidence, disclosure=disclosure, now=now)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        _copy(run, partial / RUN, [*package.parts, "ro-crate-metadata.json", "ro-crate-preview.html"])
        for site in package.sites:
            _put(partial / _sign_off(site.site), site.document)
        if journal != "none":
            aggregates = sealed_journal.aggregates_of(run)
            if journal == "open":
                place, data = sealed_journal.OPEN, sealed_journal.packed(aggregates)
                package.others[place] = "The aggregates of every round, for a replay"
            else:
                checkers = [bytes.fromhex(c.public_key) for c in found.study.outputs.checkers]
                recipients = [public_of(coordinator or private), *checkers, *readers]
                place, data = sealed_journal.SEALED, sealed_journal.sealed(aggregates, recipients)
                package.others[place] = "The aggregates of every round, sealed, for a replay by coordinator, checker or auditor"
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
    run: Path,
    found: SignedStudy,
    evidence: Sequence[bytes],
    *,
    disclosure: Disclosure = NOT_CHECKED,
    now: datetime | None = None,
) -> Package:
    """What the crate of a run tells, all of it verified. Raises as `build` does."""
    changed = changed_files(run)
    if changed:
        raise CrateInvalid("; ".join(changed[:5]), help="Take the files from a copy, or run the study again.")
    audit.verify(run / "audit.jsonl")
    result = read_json(run)
    if result["study"]["digest"] != found.digest:
        raise CrateInvalid("result.json is of another study than study.signed.json")
    sites = tuple(read_evidence(raw, found.study, found.digest) for raw in evidence)
    answered = {name for analysis in result["analyses"] for name in analysis["sites"]}
    missing = sorted(answered - {s.site for s in sites})
    if missing or len({s.site for s in sites}) != len(sites):
        raise CrateInvalid(
            f"there is no evidence of {', '.join(missing)}" if missing else "there is evidence of one site twice",
            help="Each site hands over its own: `fivefold site evidence STUDY`; name the files with --evidence.",
        )
    order = {s.name: i for i, s in enumerate(found.study.sites)}
    about = result["run"]
    return Package(
        study=found.study,
        digest=found.digest,
        run=about["id"],
        engine=about["engine"],
        software=fivefold.__version__,
        started=_time(about["started"]),
        ended=_time(about["ended"]),
        completed=bool(result["analyses"]),
        sites=tuple(sorted(sites, key=lambda s: order[s.site])),
        parts=tuple(crate_files(run)),
        built=_time((now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")),
        disclosure=disclosure,
        others={_sign_off(s.site): f"What {s.site} signed: approvals, data commitment, log head" for s in sites},
    )


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


def _time(text: str) -> str:
    return text.replace("+00:00", "Z")


def signers(run: Path, found: SignedStudy) -> dict[str, str]:
    """Whose signature on a package means something: public key (hex) → role."""
    report = audit.verify(run / "audit.jsonl")
    return {found.study.lead.public_key: "lead"} | dict.fromkeys(report.keys, "coordinator")
