"""Snapshots of long trainings on disk: from where a replay begins, instead of the first round.

Of each analysis the last one lies in a folder as two files: its weights and all other arrays as safetensors
(`NAME-000025.safetensors`), and what else it holds as deterministic CBOR after its SHA-256 (`NAME.snapshot`), which names
the first with its own. The second is replaced last, so that a crash leaves the snapshot before, whole. In a sealed run both are
sealed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.errors import JournalProblem, MessageMalformed
from fivefold.models import safetensors
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.questions import Snapshot
from fivefold.records.files import write_file
from fivefold.records.journal import sealed, unsealed
from fivefold.replay.cursor import Checkpoint

TENSOR = "@tensor"
DIGEST = 32
HELP = "Restore the run folder from a copy, or start a new run with --out."


class Checkpoints:
    """The snapshots of a run in a folder of their own; `key` (32 bytes) seals them."""

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        self.folder, self._key = folder, key

    def load(self) -> dict[str, Checkpoint]:
        """The last snapshot of each analysis. Raises `JournalProblem` for one that is damaged, `SealBroken` for a wrong key."""
        found = {}
        for path in sorted(self.folder.glob("*.snapshot")):
            try:
                text = self._read(path)
                if hashlib.sha256(text[DIGEST:]).digest() != text[:DIGEST]:
                    raise ValueError("other bytes")
                head = decode(text[DIGEST:])
                body = self._read(self.folder / head["weights"])
                if hashlib.sha256(body).digest() != head["sha256"]:
                    raise ValueError("other weights")
                state = _whole(head["state"], safetensors.load(body))
            except (OSError, ValueError, KeyError, TypeError, MessageMalformed) as error:
                raise JournalProblem(f"the snapshot {path.name} is damaged", help=HELP) from error
            found[head["analysis"]] = Checkpoint(
                head["analysis"], head["begun"], head["round"], head["persons"], head["version"], Snapshot(state)
            )
        return found

    def keep(self, it: Checkpoint) -> None:
        """Keep a snapshot in place of the analysis' last one. Raises `StorageFull`; then the last one stands."""
        arrays: dict[str, Any] = {}
        state = _parted(it.state.state, "", arrays)
        body = safetensors.dump(arrays)
        name = f"{it.analysis}-{it.round:06}.safetensors"
        head = {
            "analysis": it.analysis, "begun": it.begun, "round": it.round, "persons": it.persons, "version": it.version,
            "state": state,
            "weights": name, "sha256": hashlib.sha256(body).digest(),
        }  # fmt: skip
        self._write(self.folder / name, body)
        text = encode(head)
        self._write(self.folder / f"{it.analysis}.snapshot", hashlib.sha256(text).digest() + text)
        for old in self.folder.glob(f"{it.analysis}-[0-9]*.safetensors"):
            if old.name != name and old.stem.rpartition("-")[0] == it.analysis:
                old.unlink()

    def _read(self, path: Path) -> bytes:
        data = path.read_bytes()
        return data if self._key is None else unsealed(self._key, data, path.name.encode())

    def _write(self, path: Path, data: bytes) -> None:
        write_file(path, data if self._key is None else sealed(self._key, data, path.name.encode()))
        path.chmod(0o600)


def _parted(value: Any, place: str, arrays: dict[str, Any]) -> Any:
    """The value with each array of reals below its mappings moved to `arrays`."""
    if isinstance(value, Mapping):
        return {key: _parted(inner, f"{place}.{key}" if place else str(key), arrays) for key, inner in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.type in safetensors.TYPES:
        arrays[place] = value
        return {TENSOR: place}
    return value


def _whole(value: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {TENSOR}:
            return arrays[value[TENSOR]]
        return {key: _whole(inner, arrays) for key, inner in value.items()}
    return value
