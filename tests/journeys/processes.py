"""A consortium of processes: the coordinator in one of its own, each site in another, pipes between them.

    python -m tests.journeys.processes coordinator OUT DUMPS
    python -m tests.journeys.processes site FOLDER PLAIN

The coordinator dumps what it holds into DUMPS: its whole memory (`*.memory`) and every object that its interpreter knows
(`*.objects`), in the middle of the run and at its end; then once more with a site's plain update planted. All that passes its
pipes goes to `wire`. A site writes its plain updates to PLAIN: what is to be searched for, and what only it knows.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.auth.keys import new_key
from fivefold.coordinator.rounds import Progress, drive
from fivefold.privacy.fixed_point import ring_for
from fivefold.privacy.secagg.ring import to_bytes
from fivefold.protocol.encoding import decode, encode
from fivefold.records.audit import AuditLog
from fivefold.study.digest import load_signed
from tests.site.pipes import receive, send

MIDDLE = 7
"""The round after which the first dump is made: a Newton step of the fit."""

PIECE = 1 << 16
"""Bytes of memory dumped at a time; pieces that hold nothing but zeros are left out."""


# ---- a site ---------------------------------------------------------------------------------------------------------
def site(folder: Path, plain: Path) -> None:
    from fivefold.site import gate, node
    from fivefold.site.folder import opened

    def noting(it: gate.Departure) -> gate.Departure:
        out = gate.round_to_ring(it)
        assert out.vector is not None
        values = np.concatenate([np.asarray(it.answer[f.name], dtype=np.float64).ravel() for f in it.fields])
        with plain.open("ab") as file:
            send(file, encode({"values": values, "ring": to_bytes(out.vector, ring_for(it.fields))}))
        return out

    node.GATE = tuple(noting if part is gate.round_to_ring else part for part in gate.GATE)
    here = node.Node(opened(folder))
    while (request := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, here.answer(request))
    here.close()


class Piped:
    """An engine whose sites are processes. All bytes that pass are written away, and not kept."""

    def __init__(self, sites: Mapping[str, tuple[Path, Path]], wire: Path) -> None:
        self.wire = wire.open("wb")
        self.processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "tests.journeys.processes", "site", str(folder), str(plain)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for name, (folder, plain) in sites.items()
        }

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            process, request = self.processes[name], requests[name]
            assert process.stdin is not None
            assert process.stdout is not None
            send(process.stdin, request)
            reply = receive(process.stdout)
            if reply is not None:
                send(self.wire, request)
                send(self.wire, reply)
                yield name, reply

    def close(self) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(timeout=60) == 0
        self.wire.close()


# ---- the coordinator ------------------------------------------------------------------------------------------------
def coordinator(out: Path, dumps: Path) -> None:
    found = load_signed(out / "study.signed.json")
    plain = {s.name: dumps / f"{s.name}.plain" for s in found.study.sites}
    engine = Piped({name: (out / "sites" / name, path) for name, path in plain.items()}, dumps / "wire")

    def tell(at: Progress) -> None:
        if at.round == MIDDLE:
            dump(dumps / "middle")

    with AuditLog(dumps / "audit.jsonl", new_key(), "coordinator") as log:
        held: list[Any] = [drive(found, "run1", engine, dumps, log, tell)]
        dump(dumps / "end")
        engine.close()
        with plain["fir"].open("rb") as file:
            while (frame := receive(file)) is not None:
                held.append(decode(frame))
        dump(dumps / "planted")
    assert held


def dump(place: Path) -> None:
    with place.with_suffix(".objects").open("wb") as file:
        for data in objects():
            file.write(data)
    with place.with_suffix(".memory").open("wb") as file, open("/proc/self/mem", "rb", buffering=0) as memory:
        for start, end in regions():
            for at in range(start, end, PIECE):
                try:
                    os.lseek(memory.fileno(), at, os.SEEK_SET)
                    data = os.read(memory.fileno(), min(PIECE, end - at))
                    if data.count(0) < len(data):
                        file.write(data)
                except (OSError, OverflowError):
                    break  # a page of the kernel's own


def regions() -> list[tuple[int, int]]:
    """All of this process's readable memory, but for files that are mapped and cannot be written to."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights[0] == "r" and (rights[1] == "w" or not name or not name[0].startswith("/")):
            start, end = (int(part, 16) for part in where.split("-"))
            found.append((start, end))
    return found


def objects() -> Iterator[bytes]:
    """The bytes of every object that the interpreter can reach: texts, bytes, arrays, and rows of numbers as float64."""
    seen, open_ = set[int](), list(gc.get_objects())
    while open_:
        one = open_.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (bytes, bytearray)):
            yield bytes(one)
        elif type(one) is np.ndarray and one.dtype.kind in "iufb":
            yield one.tobytes()
            yield one.astype(np.float64).tobytes()
        elif isinstance(one, (list, tuple)) and len(one) > 1 and all(isinstance(v, (int, float)) for v in one[:2]):
            numbers = [float(v) for v in one if isinstance(v, float) or (isinstance(v, int) and abs(v) < 1 << 53)]
            yield np.array(numbers, dtype=np.float64).tobytes()
        if not isinstance(one, type(sys)):
            open_ += gc.get_referents(one)


if __name__ == "__main__":
    {"site": site, "coordinator": coordinator}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
