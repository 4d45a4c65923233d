"""The coordinator as a witness: it notes the heads of the sites' logs in its own, and is seen by them in turn."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Protocol

from fivefold.protocol.messages import Advert, Closed
from fivefold.protocol.places import Place
from fivefold.records.audit import AuditLog
from fivefold.records.witness import HEADS, packed, told, unpacked


class Heads(Protocol):
    """Where the heads of logs come from and go to."""

    def seen(self, place: Place, said: Mapping[str, Advert] | Mapping[str, Closed]) -> bytes:
        """Note what the sites showed; the head that they are told."""
        ...

    def head(self) -> bytes:
        """The coordinator's own."""
        ...


class LogHeads:
    """Heads that are entries of the run's log. An entry has a salt, so that nobody can guess from a head what stands before."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def seen(self, place: Place, said: Mapping[str, Advert] | Mapping[str, Closed]) -> bytes:
        shown = {site: told(unpacked(one.head, site)) for site, one in said.items() if one.head}
        where = {"study": place.study, "run": place.run, "round": place.round, "attempt": place.attempt}
        self._log.write(HEADS, **where, sites=shown, salt=secrets.token_hex(16))
        return self.head()

    def head(self) -> bytes:
        return packed(self._log.head)


class _Unwitnessed:
    def seen(self, place: Place, said: Mapping[str, Advert] | Mapping[str, Closed]) -> bytes:
        return b""

    def head(self) -> bytes:
        return b""


UNWITNESSED: Heads = _Unwitnessed()
"""For rounds without a log, as in a simulation."""
