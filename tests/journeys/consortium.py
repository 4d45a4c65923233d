"""A prepared breast consortium and its pooled rows, for the journeys."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from examples import prepare
from fivefold.engines.local import LocalEngine, local_engine
from fivefold.protocol.messages import Envelope
from fivefold.site.folder import opened
from fivefold.site.preparation import open_prepared
from fivefold.study.digest import SignedStudy, load_signed

ROOT = Path(__file__).parents[2]
SITES = ("alder", "birch", "cedar", "elm", "fir")
TRIPS = ("enrol", "share", "ask", "survivors", "unmask")


def signed(out: Path) -> SignedStudy:
    return load_signed(out / "study.signed.json")


def sign_anew(out: Path, text: str) -> None:
    """The study in `out` with this text, frozen and signed by its lead; nobody has approved it yet."""
    (out / "study.yaml").write_text(text, "utf-8")
    prepare.fivefold("study", "freeze", out / "study.yaml", "--replace")
    prepare.fivefold("study", "sign", out / "study.yaml", "--key", out / "lead.key", "--replace")


def alone(out: Path, analysis: str) -> str:
    """The text of the study in `out` with one of its analyses."""
    text = (out / "study.yaml").read_text("utf-8")
    head, rest = text.split("analyses:\n")
    entries, tail = rest.split("envelope:\n")
    one = next(e for e in entries.split("  - ") if e.startswith(f"name: {analysis}\n"))
    return f"{head}analyses:\n  - {one.rstrip()}\n\nenvelope:\n{tail}"


def approve_anew(out: Path, *words: str) -> None:
    """Every custodian approves the study in `out` (`words`: options of `site approve`) and freezes the site's rows."""
    for folder in sorted((out / "sites").iterdir()):
        prepare.fivefold("site", "approve", out / "study.signed.json", "--site", folder, *words, "--yes")
        prepare.fivefold("site", "prepare", out / "study.signed.json", "--site", folder)


def pooled(out: Path) -> pd.DataFrame:
    """The harmonised rows of all sites, as their snapshots hold them, with a column `site`."""
    it = signed(out)
    frames = []
    for site in it.study.sites:
        table = open_prepared(opened(out / "sites" / site.name), it.study, it.digest).table
        frames.append(pd.DataFrame(dict(table.columns)).assign(site=site.name))
    return pd.concat(frames, ignore_index=True)


class Losing:
    """An engine that loses some sites' replies to the trips of these kinds in these rounds."""

    def __init__(self, engine: LocalEngine, sites: Iterable[str], kinds: Iterable[str], rounds: Iterable[int]) -> None:
        self.engine, self.sites, self.kinds, self.rounds = engine, frozenset(sites), frozenset(kinds), frozenset(rounds)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            asked = Envelope.decode(requests[name])
            for replied in self.engine.exchange({name: requests[name]}):
                if not (name in self.sites and asked.kind in self.kinds and asked.place.round in self.rounds):
                    yield replied

    def close(self) -> None:
        self.engine.close()


class Gone:
    """An engine on which one site falls silent in a trip of a round, and stays so."""

    def __init__(self, engine: LocalEngine, site: str, kind: str, round: int) -> None:
        self.engine, self.site, self.kind, self.round = engine, site, kind, round
        self.gone = False

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            asked = Envelope.decode(requests[name])
            if name == self.site:
                self.gone = self.gone or (asked.kind, asked.place.round) == (self.kind, self.round)
                if self.gone:
                    continue
            yield from self.engine.exchange({name: requests[name]})

    def close(self) -> None:
        self.engine.close()


def engine(out: Path) -> LocalEngine:
    return local_engine(out / "sites", SITES)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "fivefold.cli.main", *map(str, words)]


def killed_in_round(number: int, *words: object) -> None:
    """`fivefold` with these words, killed when it says that this round was answered."""
    with subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        rounds = (line for line in process.stderr if line.startswith("round"))
        for _ in range(number):
            next(rounds)
        process.kill()


def fivefold(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env=os.environ | {"COLUMNS": "200"}
    )
