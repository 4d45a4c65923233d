"""Whole files, written so that a reader or a crash meets the old one or the new one, never a part."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fivefold.errors import RunError, RunFolderTaken, StorageFull


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
        sync_folder(path.parent)
    except OSError as error:
        if aside is not None:
            with suppress(OSError):
                os.unlink(aside)
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise StorageFull(f"the disk is full: {path.name} could not be written") from error
        raise RunError(f"{path} cannot be written: {error.strerror}", help="Name a place that you may write to.") from error


def write_named(path: Path, data: bytes) -> None:
    """Write a file where a user said: over an earlier one of its kind, never over anything else.

    Raises `RunFolderTaken` for a folder and for a file of another kind, which stays as it was; else as `write_file` does.
    """
    if path.is_dir():
        raise RunFolderTaken(f"{path} is a folder", help="Name a file, such as a new one in that folder.")
    if path.is_file() and path.stat().st_size and _kind(path.read_bytes()) != _kind(data):
        raise RunFolderTaken(
            f"{path} exists already and is something else", help="Name another file; this one was left as it is."
        )
    write_file(path, data)


def _kind(data: bytes) -> object:
    """What tells kinds of files apart: the keys of a first line that is a JSON object, and its `kind`; else the first bytes."""
    try:
        value = json.loads(data.split(b"\n", 1)[0])
        return sorted(value), value.get("kind")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data[:12].lower()


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
