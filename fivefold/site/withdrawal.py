"""Withdrawing, at the site: what is out already, what may still come out, and the signed notice for the others.

Nothing leaves after the custodian's statement is on disk, since every trip reads the approval first. What was opened before
stays known. The round in flight is the one hard case: once this site's masked answer is out, the others can open the sum with
it in, until they have seen the notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fivefold.auth.keys import public_of
from fivefold.errors import NotApproved
from fivefold.governance import approvals
from fivefold.governance.statements import read_chain
from fivefold.governance.withdrawals import WISHES, keep_notice, make_notice, read_notice
from fivefold.protocol.messages import Roster
from fivefold.records.journal import read
from fivefold.site.folder import SiteFolder

THINGS = ("totals", "releases", "models")
"""What may be out: each is asked for, keep, retrain without the site, or destroy."""
TRAINING = "fivefold/algorithms/training_loop.py"


@dataclass(frozen=True)
class Out:
    """What a withdrawal cannot undo. `opened`: rounds whose sums hold this site's answer, over all runs of the study.
    `in_flight`: (run, round) whose masked answer left and that this site has not seen opened."""

    runs: tuple[str, ...]
    opened: int
    in_flight: tuple[tuple[str, int], ...]
    releases: int
    trains: bool = False
    """Whether the approved methods train models."""

    @property
    def things(self) -> dict[str, str]:
        """What is out, and in words: each needs a wish."""
        found = {}
        if self.opened:
            found["totals"] = f"{self.opened} totals that were opened with this site in, and results made of them"
        if self.opened and self.trains:
            found["models"] = "models that were trained on those totals; `retrain` means: again, without this site"
        if self.releases:
            found["releases"] = f"{self.releases} releases that this site's ledger holds of this study"
        return found


@dataclass(frozen=True)
class Withdrawn:
    """A withdrawal that took place: the notice for the others, what was out, and what is wished for each."""

    notice: bytes
    out: Out
    wishes: Mapping[str, str]


def out_of(site: SiteFolder, study: str) -> Out:
    """What of a study (digest, hex) is out of this site already; read from its own books."""
    runs, opened, flying = [], 0, []
    for folder in sorted((site.state / "runs").glob("*")):
        if not (folder / "study").is_file() or (folder / "study").read_text("ascii") != study:
            continue
        runs.append(folder.name)
        answered, released = _rounds(folder)
        closed = (folder / "closed").exists()
        opened += len(released)
        flying += [] if closed else [(folder.name, r) for r in sorted(answered - released)]
    return Out(tuple(runs), opened, tuple(flying), _releases(site, study), _trains(site, study))


def withdraw(
    site: SiteFolder,
    study: str,
    custodian: bytes,
    *,
    reason: str,
    wishes: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> Withdrawn:
    """Withdraw from a study at once: logged, stated by the custodian, and put into a notice for the others.

    `wishes`: for each of `Out.things` keep, retrain or destroy; what is not named is to be kept. Raises `NotApproved` where
    nothing was approved or a wish is none, `KeyProblem`.
    """
    now = now or datetime.now(UTC)
    wished = dict(wishes or {})
    out = out_of(site, study)
    unknown = [w for w in wished.values() if w not in WISHES] or [t for t in wished if t not in THINGS]
    if unknown:
        raise NotApproved(
            f"{unknown[0]!r} is no wish of a withdrawal" if unknown[0] else "a wish names what is to become of a thing",
            rule="wish",
            help="Write totals=destroy, releases=keep, models=retrain.",
        )
    wished = dict.fromkeys(out.things, "keep") | wished
    flying = [list(f) for f in out.in_flight]
    key = site.node_key()
    with site.act("withdrawal asked", study=study, reason=reason) as log:
        log.write("withdrawal", study=study, reason=reason, opened=out.opened, may_still_be_opened=flying, wishes=wished)
        approvals.withdraw(site.path, study, custodian, reason=reason, wishes=wished, now=now)
        said = read_chain(site.state / "approvals" / study)[-1]
        out = out_of(site, study)  # nothing leaves any more; what left since the entry above is told with the next
        facts = {
            "study": study, "site": site.policy(now).site, "custodian": said.facts["custodian"], "reason": reason,
            "at": said.facts["at"], "statement": said.digest, "wishes": wished,
        }  # fmt: skip
        notice = make_notice(facts, key, custodian)
        own = Roster((facts["site"],), (public_of(key),))
        keep_notice(site.state, read_notice(notice, study, own))
        flying = [list(f) for f in out.in_flight]
        log.write("withdrawal notice", study=study, statement=said.digest, opened=out.opened, may_still_be_opened=flying)
    return Withdrawn(notice, out, wished)


def _rounds(folder: Path) -> tuple[set[int], set[int]]:
    """Rounds in which this site's masked answer left, and those that it knows to be opened with it in."""
    answered, released = set[int](), set[int]()
    for path in folder.glob("*.journal"):
        if path.name == "aggregates.journal":
            continue
        for record in read(path):
            if "answered" in record:
                answered.add(int(record["answered"][0]))
            if "released" in record:
                released.add(int(record["released"][0]))
    if (folder / "aggregates.journal").exists():
        released |= answered & {int(r["round"]) for r in read(folder / "aggregates.journal")}
    return answered, released


def _trains(site: SiteFolder, study: str) -> bool:
    """Whether a method that was approved trains models: its files say so."""
    said = read_chain(approvals.chain_of(site.path, study))
    return any(TRAINING in s.facts.get("files", {}) for s in said if s.kind == "approval")


def _releases(site: SiteFolder, study: str) -> int:
    from fivefold.records.audit import entries

    path = site.state / "audit.jsonl"
    found = (e for e in entries(path) if e.event == "release entered") if path.exists() else ()
    return len({str(e.facts.get("release")) for e in found if e.facts.get("study") == study})
