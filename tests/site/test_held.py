"""The record of the rows that lie frozen at a site: the log tells it, and the disk is compared with it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fivefold.cli.main import run
from fivefold.errors import SnapshotProblem
from fivefold.governance import approvals
from fivefold.site.held import held
from fivefold.site.preparation import close, prepare, snapshot_path


def test_what_lies_here_since_when_and_what_is_gone(
    consortium: Any, now: datetime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, here = consortium.site, ["site", "data", "--site", str(consortium.site.path)]
    assert run(here) == 0
    assert "0 snapshots held, 0 in the record" in capsys.readouterr().out
    first, second = consortium.signed(), consortium.signed(title="Another")
    for study in (first, second):
        approvals.approve(site.path, study.study, study.digest, consortium.custodian, now=now)
        prepare(site, study.study, study.digest, when=now)
    prepare(site, first.study, first.digest, when=now, again=True)  # frozen anew: one line all the same
    found, asset = {one.study: one for one in held(site)}, site.policy(now).asset
    assert {d: (one.state, one.title, one.asset) for d, one in found.items()} == {
        first.digest: ("held", "Weight and age", asset), second.digest: ("held", "Another", asset)
    }  # fmt: skip
    assert found[first.digest].until == "2027-06-30"
    assert found[first.digest].size == snapshot_path(site, first.digest).stat().st_size
    close(site, second.digest)
    capsys.readouterr()
    assert run(here) == 0
    shown = capsys.readouterr().out
    assert "destroyed: Another" in shown
    assert "1 snapshot held, 2 in the record" in shown

    aside = snapshot_path(site, first.digest).rename(tmp_path / "aside")
    snapshot_path(site, second.digest).write_bytes(aside.read_bytes())
    stranger = snapshot_path(site, "ab" * 32)
    stranger.write_bytes(b"rows that nobody wrote down")
    assert run([*here, "--json"]) == SnapshotProblem.exit_code
    told = {one["study"]: one["state"] for one in json.loads(capsys.readouterr().out)}
    assert told == {first.digest: "missing", second.digest: "not in the log", "ab" * 32: "not in the log"}
