"""Whole files, written so that a reader or a crash meets the old one or the new one, never a part."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fivefold.errors import RunError, StorageFull


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably: written aside, synchronised, renamed. Folders are made as needed.

    Raises `StorageFull`, or `RunError` if the folder cannot be written to; the old file then stays as it was.
    """
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if aside is not None:
            with suppress(OSError):
                os.unlink(aside)
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise StorageFull(f"the disk is full: {path.name} could not be written") from error
        raise RunError(f"{path.name} cannot be written: {error.strerror}", help="Correct the folder's rights.") from error
