"""A site's process: a SuperNode of its own. It holds the connection; a child without a network answers what is for Fivefold.

It fetches no app, runs no code that arrives, and refuses and logs whatever is not a Fivefold request. After a message it asks
every 20 ms for 5 s, since the next is near; then it waits longer and longer, up to 3 s, as Flower's own SuperNode always does.
"""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fivefold.engines.flower.answering import Answering
from fivefold.engines.flower.certificates import check_authority, read_connection_key
from fivefold.engines.flower.connections import BEAT_IDLE, SiteConnection
from fivefold.engines.flower.wire import KIND, Fleet, Letter
from fivefold.errors import EngineProblem, SourceNotFound
from fivefold.governance.statements import store
from fivefold.site.folder import SiteFolder, opened

NODE_ID = "connection.node"
SOON, SOON_FOR, SELDOM = 0.02, 5.0, 3.0
HEARTBEAT_BUSY = 2.0
RECONNECT_FIRST, RECONNECT_MOST = 0.5, 30.0


class Pace:
    """How long to wait before asking again: 20 ms for 5 s after a message, then doubling up to 3 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.wait = SELDOM
        self.sites = 1
        self._until = 0.0

    def working(self) -> None:
        """A message is being answered, however long that takes."""
        self._until = math.inf

    def message(self, sites: int = 1) -> None:
        """A message was answered: the next is near. `sites`: how many were asked with this one."""
        self.sites = sites
        self.wait, self._until = SOON, self._clock() + SOON_FOR

    def nothing(self, cost: float = 0.0) -> float:
        """Seconds to wait now. `cost`: seconds that asking took. A SuperLink answers one call after the other: all sites of a
        run together take at most half of its time."""
        if self._clock() > self._until:
            self.wait = min(2 * self.wait, SELDOM)
        return min(max(self.wait, 2 * self.sites * cost), SELDOM)

    @property
    def busy(self) -> bool:
        return self._clock() <= self._until


def start(
    folder: Path, address: str, root_certificates: Path, *, tell: Callable[[str], None], stop: threading.Event | None = None
) -> None:
    """Run a site until it is told to stop (SIGTERM, SIGINT, or `stop`). A lost connection is sought again, ever less often.

    Raises `SourceNotFound` (no certificate), `KeyProblem`, `EngineProblem` (not admitted; no way to give up the network).
    """
    stop = stop or threading.Event()
    site = opened(folder)
    if not root_certificates.is_file():
        raise SourceNotFound(f"there is no certificate at {root_certificates}", help="The coordinator gives it: its ca.pem.")
    check_authority(root_certificates)
    key = read_connection_key(site.keys)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    child = Answering(folder)
    wait, known = RECONNECT_FIRST, False
    try:
        while not stop.is_set():
            fleet = SiteConnection(address, root_certificates, key)
            try:
                store(site.state / NODE_ID, str(fleet.connect(_last(site))).encode())
                tell(f"{site.name()} is connected to {address}")
                wait, known = RECONNECT_FIRST, True
                attend(fleet, child, stop, tell)
            except PermissionError as error:
                if not known:
                    with site.audit() as log:
                        log.write("connection refused", address=address)
                    raise EngineProblem(
                        f"the SuperLink at {address} does not admit this site's connection key",
                        help="Send keys/connection.pub to the coordinator, who runs `fivefold coordinator admit`.",
                    ) from error
                tell("the SuperLink does not know this site for the moment; trying again")
            except ConnectionError as error:
                tell(f"{error}; trying again within {wait:.1f} s")
            finally:
                fleet.close()
            stop.wait(wait * random.uniform(0.5, 1.0))  # sites that were cut off together do not come back together
            wait = min(2 * wait, RECONNECT_MOST)
    finally:
        child.close()


def _last(site: SiteFolder) -> int:
    """The node id of the last connection, 0 where there was none."""
    try:
        return int((site.state / NODE_ID).read_text("ascii"))
    except (OSError, ValueError):
        return 0


def attend(fleet: Fleet, child: Answering, stop: threading.Event, tell: Callable[[str], None] = lambda _: None) -> None:
    """Message after message, until told to stop. Raises `ConnectionError`, `PermissionError` where the connection is lost."""
    pace = Pace()
    done, gone = threading.Event(), threading.Event()
    heart = threading.Thread(target=_beat, args=(fleet, pace, done, gone), daemon=True)
    heart.start()
    try:
        while not stop.is_set():
            if gone.is_set():
                raise PermissionError("the SuperLink takes no sign of life of this site")
            start = time.monotonic()
            letter = fleet.receive()
            if letter is None:
                stop.wait(pace.nothing(time.monotonic() - start))
                continue
            pace.working()
            pace.message(handle(fleet, child, letter, tell))
    finally:
        done.set()


def handle(fleet: Fleet, child: Answering, letter: Letter, tell: Callable[[str], None] = lambda _: None) -> int:
    """One message: to the child, or refused. Returns how many sites were asked with this one.

    A reply to a run that has ended meanwhile (its coordinator died, say) is taken by nobody, and no reason to hang up.
    """
    answer, asked, reason = b"", 1, "this site answers Fivefold requests only"
    if letter.kind != KIND:
        child.foreign({"kind": letter.kind[:60], "flower_run": str(letter.run), "rule": "foreign_message"})
    else:
        answer, asked = child.answer(letter.payload)
        reason = "this request was not answered"
    try:
        if answer:
            fleet.reply(letter, answer)
        else:
            fleet.decline(letter, reason)
    except PermissionError as error:
        tell(f"a reply was not taken: {error}")
    return asked


def _beat(fleet: Fleet, pace: Pace, done: threading.Event, gone: threading.Event) -> None:
    """Signs of life: every 2 s while a run is on, so that a death is seen soon; as often as Flower's own nodes when idle.

    One that did not get through is given again: the loop's own calls may get through all the same, and a site that is connected
    and gives no sign of life is asked nothing. `gone`: the SuperLink does not know this site any more.
    """
    last, was = time.monotonic(), False
    while not done.wait(0.5):
        busy = pace.busy
        if busy == was and time.monotonic() - last < (HEARTBEAT_BUSY if busy else 0.8 * BEAT_IDLE):
            continue
        try:
            fleet.alive(busy)
        except ConnectionError:
            continue
        except PermissionError:
            gone.set()
            return
        last, was = time.monotonic(), busy
