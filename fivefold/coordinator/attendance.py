"""Who takes part in a run just now: which sites have it open, how far each has followed it, and what they refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fivefold.coordinator.secure_rounds import Made, SecureRounds
from fivefold.coordinator.stragglers import Patience
from fivefold.errors import FivefoldError, SiteRefused, TooManyDropouts
from fivefold.governance.withdrawals import Withdrawal
from fivefold.protocol.messages import Open, Roster
from fivefold.records.audit import AuditLog

if TYPE_CHECKING:
    from fivefold.coordinator.rounds import Engine

NOT_OPEN = "run"
"""The rule by which a node says that it restarted, and does not have this run open."""
WITHDREW = frozenset({"approval_withdrawn", "peer_withdrew"})
"""Rules by which a site says that it, or another, withdrew: the round is asked anew without it, and the others judge that."""
HARMLESS = WITHDREW | {
    NOT_OPEN,
    "attempt_over",
    "second_key_list",
    "second_request",
    "secrets_lost",
    "replayed_round",
    "out_of_order",
    "late",
    "nothing_computed",
}
"""Rules that say that site and coordinator are not at the same place, after one of them restarted: the round is asked anew."""


@runtime_checkable
class Guarded(Protocol):
    """An engine that itself finds out who answers, and so meets those who are no site of the study."""

    def turned_away(self) -> list[Mapping[str, str]]:
        """Whom it has met since it was last asked: facts for the log, none of them a person's or a secret."""
        ...


class Attendance:
    """The engine, seen from the run: sites that could not open it are not asked, refusals are logged and remembered."""

    def __init__(
        self,
        engine: Engine,
        roster: Roster,
        log: AuditLog,
        keep: Callable[[str, bytes], None] | None = None,
        withdrawn: Callable[[str, bytes], Withdrawal] | None = None,
        patience: Patience | None = None,
        refusing: Callable[[str, bytes], bool] = lambda site, notice: False,
    ) -> None:
        self._engine, self._roster, self._log, self._keep = engine, roster, log, keep
        self._withdrawn, self._passed = withdrawn, set[str]()
        self._patience, self._refusing = patience, refusing
        self.known: dict[str, int] = {}
        """Site → the last round that it has followed, for the sites that have the run open."""
        self.alone: frozenset[str] | None = None
        """The only sites that are asked, where these are fixed already."""
        self._away = frozenset[str]()
        self._refusals: dict[str, tuple[str, str]] = {}

    def exchange(self, requests: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]:
        asked = tuple(n for n in requests if n not in self._away and (self.alone is None or n in self.alone))
        made = Made(asked, requests.__getitem__)
        yield from self._engine.exchange(made) if self._patience is None else self._patience.exchange(made)
        if isinstance(self._engine, Guarded):
            for facts in self._engine.turned_away():
                self._log.write("stranger answered", **facts)

    def about(self, wanted: Iterable[str], asking: bool, counts: bool) -> None:
        """What the next trip is for."""
        if self._patience is not None:
            self._patience.about(wanted, asking=asking, counts=counts)

    def refused(self, site: str, code: str, rule: str) -> None:
        if self._patience is not None:
            self._patience.refused(site)
        self._log.write("refusal", site=site, code=code, rule=rule)
        if rule == NOT_OPEN:
            self.known.pop(site, None)
        self._refusals[site] = (code, rule)

    def noticed(self, site: str, notice: bytes) -> bool:
        """A site's notice that it withdrew, or refused the study, verified, kept and logged; whether the others are to be told,
        once. Raises nothing: a false one counts for nothing, and the log says so."""
        if self._refusing(site, notice) or self._withdrawn is None or site in self._passed:
            return False
        try:
            said = self._withdrawn(site, notice)
        except FivefoldError as error:
            self._log.write("notice refused", site=site, **error.public())
            return False
        self._passed.add(site)
        facts = {"reason": said.reason, "at": said.at, "statement": said.statement, "wishes": said.wishes}
        self._log.write("withdrawal", site=site, by=said.custodian, **facts)
        return True

    def anew(self) -> None:
        """A new attempt: what was refused before does not count."""
        self._refusals.clear()

    def open(self, sums: SecureRounds, round: int, opening: Open) -> None:
        """Open the run wherever it is not."""
        missing = frozenset(self._roster.names) - self.known.keys()
        if missing:
            self._away = frozenset()
            self.known |= sums.open(round, opening, self._roster.in_order(missing), self._keep)
            self._away = missing - self.known.keys()

    def enough(self, needed: int) -> None:
        """Raises `TooManyDropouts`."""
        if len(self.known) < needed:
            of = len(self._roster.names)
            raise TooManyDropouts(f"{len(self.known)} of {of} sites have the run open, and {needed} are needed")

    def followed(self, survivors: Iterable[str], round: int, aside: Collection[str] = ()) -> None:
        """These have followed the run up to this round. The others may have restarted: they open it again; but one that is
        only slow goes on where it is, and says so itself if it has the run no more; so does one that the analysis leaves
        `aside`."""
        slow = self._patience.behind() if self._patience is not None else frozenset[str]()
        self.known = {s: n for s, n in self.known.items() if s in slow or s in aside} | dict.fromkeys(survivors, round)

    def stop(self, error: TooManyDropouts, *, last: bool) -> None:
        """Raises `SiteRefused` with who refused, by which rule of theirs, where asking again would not help."""
        grave = {s: r for s, r in self._refusals.items() if last or r[1] not in HARMLESS}
        if grave:
            shown = {s: r for s, r in self._refusals.items() if s in grave or r[1] in WITHDREW}
            raise _stopped(shown, error) from error


def _stopped(refusals: Mapping[str, tuple[str, str]], error: FivefoldError) -> SiteRefused:
    said = "; ".join(f"{site}: {code} ({rule})" if rule else f"{site}: {code}" for site, (code, rule) in refusals.items())
    return SiteRefused(f"{error.message}; refused by {said}", rule=next(iter(refusals.values()))[1])
