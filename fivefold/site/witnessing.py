"""A site as a witness of the other parties' audit logs, during one run.

The key list brings the head of every other site's log, and beside it the coordinator's. A coordinator whose log went back, or
that begins another one, is refused: it has told this site another story before. A peer's log that contradicts what was seen
is written down, and the run goes on; `fivefold audit verify --against` shows it to an auditor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fivefold.errors import ProtocolViolation
from fivefold.protocol.messages import Advert
from fivefold.protocol.places import Roster
from fivefold.records.audit_entries import Head
from fivefold.records.witness import COORDINATOR, told, unpacked


class Witness:
    """What this site was shown in a run, since its node started."""

    def __init__(self, site: str, roster: Roster) -> None:
        self._site, self._roster = site, roster
        self._coordinator: Head | None = None
        self._peers: dict[tuple[str, int], str] = {}

    def shown(self, adverts: Mapping[str, Advert], head: bytes) -> dict[str, Any]:
        """The facts of the entry `heads`; `contradicts` names peers who signed two entries of one number. Raises
        `ProtocolViolation`: `log_head` where a head is missing or not its owner's, `log_rewritten` where the coordinator's log
        is not the one that was shown before."""
        facts: dict[str, Any] = {COORDINATOR: told(self.coordinator(head)), "sites": {}}
        for name, advert in adverts.items():
            if name == self._site:
                continue
            peer = unpacked(advert.head, name, self._roster.key(name))
            facts["sites"][name] = told(peer)
            if self._peers.setdefault((name, peer.seq), peer.hash) != peer.hash:
                facts.setdefault("contradicts", []).append(name)
        return facts

    def coordinator(self, head: bytes) -> Head:
        """The coordinator's head, once it follows from the one before."""
        now, before = unpacked(head, COORDINATOR), self._coordinator
        if before is not None and (now.key != before.key or now.seq < before.seq or (now.seq == before.seq and now != before)):
            raise ProtocolViolation(
                "the coordinator's log is not the one that this site was shown before: it was put back or written anew",
                rule="log_rewritten",
                help="Begin a new run; compare the logs with `fivefold audit verify LOG --against OTHER`.",
            )
        self._coordinator = now
        return now
