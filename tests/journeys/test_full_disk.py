"""The disk fills up at any file of a run: one sentence, exit code 54, nothing lost, and the run goes on when there is room."""

from __future__ import annotations

import errno
import io
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth.keys import public_of, read_key
from fivefold.cli.main import run as fivefold_here
from fivefold.engines.flower import wire
from fivefold.engines.flower.answering import serve
from fivefold.engines.flower.frames import read_frame, write_frame
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.records.audit import verify
from fivefold.records.validation import changed_files
from fivefold.results.write import comparable
from fivefold.site.folder import opened
from fivefold.study.digest import load_signed
from tests.journeys.consortium import SITES, alone, approve_anew, sign_anew


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast consortium with the description alone, approved and frozen anew."""
    out = tmp_path_factory.mktemp("full") / "breast"
    prepare.prepare("breast", out)
    sign_anew(out, alone(out, "description"))
    approve_anew(out)
    return out


@pytest.fixture(scope="module")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run that was left alone."""
    out = shutil.copytree(prepared, tmp_path_factory.mktemp("full") / "whole")
    assert fivefold_here(["run", str(out / "study.yaml"), "--out", str(out / "run"), "--quiet"]) == 0
    return out / "run"


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


def fill(patch: pytest.MonkeyPatch, place: str, after: int) -> list[str]:
    """The disk is full for files that match `place`, once `after` of their writes were durable. What it refused is listed."""
    honest = os.fsync
    left, refused = after, list[str]()

    def fsync(handle: int) -> None:
        nonlocal left
        path = os.readlink(f"/proc/self/fd/{handle}")
        if fnmatch(path, f"*{place}"):
            left -= 1
            if left < 0:
                refused.append(path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        honest(handle)

    patch.setattr(os, "fsync", fsync)
    return refused


PLACES = [
    ("/run/audit.jsonl*", 3),
    ("/run/journal/*", 0),
    ("/run/journal/*", 4),
    ("/run/tables/*", 1),
    ("/run/plots/*.png*", 0),
    ("/run/.result.json*", 0),
    ("/run/.ro-crate-metadata.json*", 0),
    ("/run/.ro-crate-preview.html*", 0),
]


@pytest.mark.parametrize(("place", "after"), PLACES)
def test_full_at_any_file(
    breast: Path, whole: Path, place: str, after: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = breast / "run"
    with monkeypatch.context() as patch:
        refused = fill(patch, place, after)
        code = fivefold_here(["run", str(breast / "study.yaml"), "--out", str(folder), "--quiet"])
    said = capsys.readouterr().err
    assert refused, "the run never wrote there"
    assert "Traceback" not in said
    assert said.count("✗") == 1
    assert not (folder / "result.json").exists() or "crate" in place
    assert code == 54, said
    assert "the disk is full" in said
    assert "--resume" in said
    assert fivefold_here(["run", str(breast / "study.yaml"), "--resume", str(folder), "--quiet"]) == 0, capsys.readouterr().err
    assert comparable(folder) == comparable(whole)
    for table in sorted((whole / "tables").iterdir()):
        assert (folder / "tables" / table.name).read_bytes() == table.read_bytes()
    assert changed_files(folder) == []
    assert not list(folder.rglob("*.new")), "nothing half written is left"
    verify(folder / "audit.jsonl", public_of(read_key(folder / "coordinator.key")))
    for site in SITES:
        verify(breast / "sites" / site / "state" / "audit.jsonl")


@pytest.mark.parametrize("place", ["/fir/state/runs/*.journal", "/fir/state/classes/*"])
def test_full_at_a_site(
    breast: Path, whole: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a site must remember before it answers has no room: it says so, and the run goes on without it."""
    study, folder = breast / "study.yaml", breast / "run"
    with monkeypatch.context() as patch:
        refused = fill(patch, place, 0)
        code = fivefold_here(["run", str(study), "--out", str(folder), "--quiet"])
    said = capsys.readouterr().err
    assert refused, "the site never wrote there"
    assert (code, "fir refused (StorageFull)" in said) == (0, True), said
    assert [one["dropped"] for one in comparable(folder)["analyses"]] == [["fir"]]
    verify(breast / "sites" / "fir" / "state" / "audit.jsonl")
    assert fivefold_here(["run", str(study), "--out", str(breast / "again"), "--quiet"]) == 0
    assert comparable(breast / "again") == comparable(whole), "with room, it takes part as before"


def test_a_site_that_cannot_write_its_log_is_silent_and_lives_on(breast: Path) -> None:
    """The answering process over Flower: not a word leaves that was not written down; with room it answers the same request."""
    found, place = load_signed(breast / "study.signed.json"), breast / "sites" / "fir"
    asked = m.request(m.Place(found.digest, "run1", 1, 1), m.Open(found.to_bytes(), ()))
    frame, site = encode({"do": "answer", "request": wire.request(bytes(16), {"fir": asked}, 1)}), opened(place)

    class Source(io.BytesIO):
        """The same request twice; the disk is full at the first."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == self.getbuffer().nbytes // 2:
                patch.undo()
            return super().read(size)

    ask, sink = io.BytesIO(), io.BytesIO()
    write_frame(ask, frame)
    with pytest.MonkeyPatch.context() as patch:
        refused = fill(patch, "/fir/state/audit.jsonl*", 0)
        serve(site, Source(ask.getvalue() * 2), sink)
    assert refused
    sink.seek(0)
    silent, answered = (decode(read_frame(sink) or b"") for _ in range(2))
    assert silent["reply"] == b""
    _, answer = wire.read_reply(answered["reply"], bytes(16), {"fir": public_of(site.node_key())})
    assert m.Envelope.decode(m.envelopes_of(answer)[0]).kind == "opened"
    verify(place / "state" / "audit.jsonl")
