"""The coordinator's audit log of a run: whole when it is taken up again, and never silent about how a run stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fivefold.auth.keys import public_of, read_key
from fivefold.errors import FivefoldError, KeyProblem
from fivefold.records.audit import AuditLog, entries, verify

LOG = "audit.jsonl"
KEY = "coordinator.key"


def run_key(place: Path) -> bytes:
    """The coordinator's private key of a run. Raises `KeyProblem`."""
    if not place.is_file():
        raise KeyProblem(
            f"the run's key {place.name} is gone", help="Restore it from a copy of the run, or start a new one with --out."
        )
    return read_key(place)


@contextmanager
def run_log(folder: Path, key: bytes, *, resume: bool) -> Iterator[AuditLog]:
    """The log of a run. One that is resumed is verified from its first entry; a run that stops says so, where that can be
    written. Raises `AuditBroken`, `StorageFull`."""
    with AuditLog(folder / LOG, key, "coordinator") as log:
        if resume:
            verify(folder / LOG, public_of(key))
        try:
            yield log
        except BaseException as error:
            said = error.public() if isinstance(error, FivefoldError) else {"code": type(error).__name__}
            with suppress(FivefoldError, OSError):
                log.write("run stopped", **said)
            raise


def note_second_run(folder: Path) -> None:
    """Tell the log of a run that goes on in this folder that another was refused, where that can be written."""
    with suppress(FivefoldError, OSError), AuditLog(folder / LOG, read_key(folder / KEY), "coordinator") as log:
        log.write("second run refused")


def refusals(folder: Path) -> Mapping[str, tuple[str, str]]:
    """Site → code and rule of what it refused last, as the run's log has it."""
    found = (e.facts for e in entries(folder / LOG) if e.event == "refusal")
    return {str(f["site"]): (str(f["code"]), str(f["rule"])) for f in found}
