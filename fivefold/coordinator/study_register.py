"""The register of studies below a folder: what was signed, what for, how long, and where each stands at each site.

It is read from signed studies and the signed logs of their runs each time, never kept: so it cannot be out of date, and nobody
can write a line into it. What a study's results say has no place in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fivefold.coordinator.life import STUDY_FILE, lives_of
from fivefold.errors import FivefoldError
from fivefold.governance.safe_outputs import RECALL, RELEASE
from fivefold.governance.statements import read_chain
from fivefold.protocol.results import ResultTable
from fivefold.study.digest import SignedStudy, load_signed

SIGNED = ".signed.json"
UNKNOWN = "not known"
"""The state at each site where a run's log or statements are not whole."""
COPIES = frozenset({"site.yaml", "bagit.txt"})
"""What tells a site's folder and a package's: a study in them is a copy."""


COLUMNS = (
    "digest", "title", "question", "lead", "organisation", "purpose", "public_benefit", "ethics", "data_sharing", "expires",
    "methods", "variables", "site", "run", "state", "released", "recalled",
)  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """One run of a study: its folder, each site's state, and how many of its outputs were released and recalled."""

    folder: str
    sites: Mapping[str, str]
    released: int
    recalled: int


@dataclass(frozen=True)
class Entry:
    """A signed study. `sites` are those that it names; a study that never ran has no `runs`."""

    digest: str
    title: str
    question: str
    lead: str
    organisation: str
    purpose: str
    public_benefit: str
    ethics: str
    data_sharing: str
    expires: str
    methods: tuple[str, ...]
    variables: tuple[str, ...]
    sites: tuple[str, ...]
    runs: list[Listed] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Register:
    """The studies in the order of their titles, and what could not be read: folder or file → why."""

    entries: tuple[Entry, ...]
    unread: Mapping[str, FivefoldError]


def register(folder: Path, now: datetime | None = None) -> Register:
    """Everything that was signed below a folder. A run whose log is not whole is told under `unread`, and nothing is left out
    silently."""
    found: dict[str, Entry] = {}
    unread: dict[str, FivefoldError] = {}
    for path in _signed(folder):
        place = str(path.parent.relative_to(folder))
        try:
            signed = load_signed(path)
            entry = found.setdefault(signed.digest, _entry(signed))
        except FivefoldError as error:
            unread[str(path.relative_to(folder))] = error
            continue
        if path.name == STUDY_FILE and (path.parent / "run.id").is_file():
            try:
                entry.runs.append(_listed(path.parent, place, now))
            except FivefoldError as error:
                unread[place] = error
                entry.runs.append(Listed(place, dict.fromkeys(entry.sites, UNKNOWN), 0, 0))
    return Register(tuple(sorted(found.values(), key=lambda e: (e.title, e.digest))), unread)


def table(found: Register) -> ResultTable:
    """The register as a table: a row for each study, run and site; a study that never ran is proposed to its sites."""
    rows = []
    for e in found.entries:
        head = (
            e.digest, e.title, e.question, e.lead, e.organisation, e.purpose, e.public_benefit, e.ethics, e.data_sharing,
            e.expires, " ".join(e.methods), " ".join(e.variables),
        )  # fmt: skip
        for run in e.runs or [Listed("", dict.fromkeys(e.sites, "proposed"), 0, 0)]:
            rows += [(*head, site, run.folder, state, run.released, run.recalled) for site, state in run.sites.items()]
    return ResultTable.of("Studies", COLUMNS, rows)


def _signed(folder: Path) -> Iterator[Path]:
    """Signed files below a folder, but for the copies within a site or a package."""
    for here, below, files in os.walk(folder):
        if COPIES & {*files}:
            below.clear()
            continue
        below.sort()
        yield from (Path(here) / name for name in sorted(files) if name.endswith(SIGNED))


def _entry(signed: SignedStudy) -> Entry:
    it, agreed = signed.study, signed.study.agreements
    return Entry(
        signed.digest, it.title, it.question, it.lead.name, it.lead.organisation, agreed.purpose, agreed.public_benefit,
        agreed.ethics, agreed.data_sharing, agreed.expires, tuple(dict.fromkeys(a.method for a in it.analyses)),
        tuple(it.variables), tuple(s.name for s in it.sites),
    )  # fmt: skip


def _listed(run: Path, place: str, now: datetime | None) -> Listed:
    kinds = [s.kind for s in read_chain(run / "airlock")]
    states = {name: life.state for name, life in lives_of(run, now).items()}
    return Listed(place, states, kinds.count(RELEASE), kinds.count(RECALL))
