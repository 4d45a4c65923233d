"""The disk fills up at any file of a run: one sentence, exit code 54, nothing lost, and the run goes on when there is room."""

from __future__ import annotations

import errno
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth.keys import public_of, read_key
from fivefold.cli.main import run as fivefold_here
from fivefold.records.audit import verify
from fivefold.records.validation import changed_files
from fivefold.results.write import comparable
from tests.journeys.consortium import SITES, approve_anew, sign_anew


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast consortium with the description alone, approved and frozen anew."""
    out = tmp_path_factory.mktemp("full") / "breast"
    prepare.prepare("breast", out)
    lines = (out / "study.yaml").read_text("utf-8")
    first, last = lines.index("  - name: malignancy"), lines.index("envelope:")
    sign_anew(out, lines[:first] + lines[last:])
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
