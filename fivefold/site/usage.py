"""What each run used of this site's machine: trips, bytes received and sent, processor seconds (SATRE 2.2.15).

The figures lie under the run (`state/runs/RUN/usage.json`), so that they outlive a restart of the node, and stand in the log's
entry of the run's end. They are an account, not a gate: where they cannot be written, the answer is given all the same.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.governance.approvals import approvals
from fivefold.site.folder import SiteFolder

FILE = "usage.json"
LONGEST = 40
"""Letters of a run's name."""


@dataclass(frozen=True)
class Usage:
    """`received` and `sent` in bytes, requests and replies whole; `seconds` of the processor, of this process and of the
    children that it waited for; `first` and `last` request (ISO 8601, UTC)."""

    trips: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    first: str = ""
    last: str = ""

    def facts(self) -> dict[str, Any]:
        """What the log says at the run's end."""
        return {"trips": self.trips, "received": self.received, "sent": self.sent, "seconds": self.seconds}


@dataclass(frozen=True)
class RunUsage:
    """One run of a study (digest, hex) at this site; `title` as the custodian approved it."""

    run: str
    study: str
    title: str
    closed: bool
    usage: Usage


class Meter:
    """Counts what a node's answers cost, run by run. `runs`: the folder in which each run has its own."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._known: dict[str, Usage] = {}

    def of(self, run: str) -> Usage:
        """What a run has used so far, the trip at hand left out."""
        if run not in self._known:
            self._known[run] = read_usage(self.runs / run)
        return self._known[run]

    def count(self, run: str, received: int, sent: int, seconds: float) -> None:
        """Add one trip to a run that this site has admitted; what names no such run is nobody's."""
        if not run.isalnum() or len(run) > LONGEST or not (self.runs / run / "study").is_file():
            return
        before, now = self.of(run), datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        after = Usage(
            trips=before.trips + 1,
            received=before.received + received,
            sent=before.sent + sent,
            seconds=round(before.seconds + seconds, 3),
            first=before.first or now,
            last=now,
        )
        self._known[run] = after
        aside = self.runs / run / f".{FILE}.new"
        with suppress(OSError):  # no fsync: a crash may cost the last figures, and nothing else
            aside.write_text(json.dumps(asdict(after)), "ascii")
            aside.replace(self.runs / run / FILE)


def spent() -> float:
    """Processor seconds of this process, and of its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def read_usage(place: Path) -> Usage:
    """The figures of a run's folder; none where there is no file, or one that is none."""
    try:
        value = json.loads((place / FILE).read_text("ascii"))
        return replace(Usage(), **{name: type(old)(value[name]) for name, old in asdict(Usage()).items()})
    except (OSError, ValueError, KeyError, TypeError):
        return Usage()


def runs_of(site: SiteFolder) -> Iterator[RunUsage]:
    """Every run at this site with what it used, the oldest first. Raises `StatementInvalid` for an altered approval."""
    found = []
    titles = {
        study: str(one.facts.get("title", ""))
        for study, said in approvals(site.path).items()
        for one in said
        if one.kind == "approval"
    }
    for place in (site.state / "runs").glob("*"):
        if (place / "study").is_file():
            study = (place / "study").read_text("ascii").strip()
            found.append(RunUsage(place.name, study, titles.get(study, ""), (place / "closed").exists(), read_usage(place)))
    yield from sorted(found, key=lambda one: (one.usage.first, one.run))
