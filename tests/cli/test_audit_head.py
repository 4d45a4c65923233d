"""A head that a third party keeps shows a log that was put back to an earlier state as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path

from typer.testing import CliRunner

from fivefold.cli.audit import app
from fivefold.errors import AuditBroken
from fivefold.records.audit import AuditLog


def test_a_lodged_head_shows_a_log_that_was_put_back(tmp_path: Path) -> None:
    log, old, kept = tmp_path / "audit.jsonl", tmp_path / "old", tmp_path / "witness.head"
    with AuditLog(log, bytes([7]) * 32, "alder") as it:
        it.write("ask", round=1)
    shutil.copytree(tmp_path, old)
    with AuditLog(log, bytes([7]) * 32, "alder") as it:
        it.write("ask", round=2)
    said = CliRunner().invoke(app, ["head", str(log), "--out", str(kept)])
    assert said.exit_code == 0
    assert "entry 3 of alder" in said.stdout
    assert CliRunner().invoke(app, ["head", str(log)]).stdout.encode() == kept.read_bytes()
    with AuditLog(log, bytes([7]) * 32, "alder") as it:
        it.write("ask", round=3)
    assert CliRunner().invoke(app, ["verify", str(log), "--against", str(kept)]).exit_code == 0
    for name in ("audit.jsonl", "audit.jsonl.head"):
        shutil.copy(old / name, tmp_path / name)
    assert CliRunner().invoke(app, ["verify", str(log)]).exit_code == 0
    found = CliRunner().invoke(app, ["verify", str(log), "--against", str(kept)])
    assert isinstance(found.exception, AuditBroken)
