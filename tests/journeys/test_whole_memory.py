"""All that the coordinator's process ever holds, the sites being other processes, has no trace of a site's plain update."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fivefold.protocol.encoding import decode
from tests.journeys.consortium import ROOT, SITES
from tests.journeys.hostile import Consortium
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them
from tests.journeys.search import found_in, leaves, windows
from tests.site.pipes import receive

LEAST = {"objects": 100_000, "memory": 20_000_000}
"""Bytes of a dump that has missed nothing much."""


def frames(path: Path) -> list[bytes]:
    found = []
    with path.open("rb") as file:
        while (frame := receive(file)) is not None:
            found.append(frame)
    return found


def needles(plain: Path) -> dict[str, set[bytes]]:
    """The telling windows of a site's answers, all rounds, in each form."""
    found: dict[str, set[bytes]] = {"float64": set(), "float32": set(), "ring": set()}
    for frame in frames(plain):
        noted = decode(frame)
        found["float64"] |= windows(noted["values"].tobytes())
        with np.errstate(over="ignore"):
            found["float32"] |= windows(noted["values"].astype(np.float32).tobytes(), 4)
        found["ring"] |= windows(noted["ring"])
    return found


@pytest.fixture
def dumps(them: Consortium, tmp_path: Path) -> Path:
    place = tmp_path / "dumps"
    place.mkdir()
    words = [sys.executable, "-m", "tests.journeys.processes", "coordinator", str(them.out), str(place)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return place


def test_no_plain_update_in_the_coordinators_whole_memory(dumps: Path) -> None:
    by_site = {site: needles(dumps / f"{site}.plain") for site in SITES}
    assert all(len(found) > 50 for forms in by_site.values() for found in forms.values())
    wanted = set().union(*(found for forms in by_site.values() for found in forms.values()))
    for moment in ("middle", "end"):
        for kind in ("objects", "memory"):
            data = (dumps / f"{moment}.{kind}").read_bytes()
            assert len(data) > LEAST[kind], (moment, kind)
            assert not found_in(data, wanted), (moment, kind)
    for frame in frames(dumps / "wire"):
        for data in (frame, *leaves(decode(frame))):
            assert not found_in(data, wanted)
    for path in (dumps / "journal").iterdir():
        assert not found_in(path.read_bytes(), wanted)

    # the control: fir's updates, planted in the same process afterwards, are found in the same way
    for kind in ("objects", "memory"):
        data = (dumps / f"planted.{kind}").read_bytes()
        for form in ("float64", "ring"):
            assert found_in(data, wanted) >= by_site["fir"][form], (kind, form)
