"""What a study says about slow sites is checked, shown and part of what is signed; a study that says nothing waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.cli.main import run as cli
from fivefold.governance import study_check
from fivefold.study.definition import Stragglers
from fivefold.study.digest import canonical, digest, study_from
from tests.governance.test_study_check import TODAY, study


def said(folder: Path, stragglers: str) -> Path:
    path = study(folder)
    path.write_text(path.read_text("utf-8") + stragglers, "utf-8")
    return path


@pytest.mark.parametrize(
    ("stragglers", "what"),
    [
        ("{policy: quorum}", "until a deadline"),
        ("{policy: quorum, deadline: 0}", "until a deadline"),
        ("{policy: quorum, deadline: 60, quorum: 2}", "a quorum of 2 is not 3"),
        ("{policy: drop, quorum: 4}", "to 3 (all sites)"),
        ("{policy: drop, deadline: 60}", "has no deadline"),
        ("{policy: wait, quorum: 3}", "waits for all"),
        ("{policy: hurry}", "policy"),
    ],
)
def test_what_cannot_be_kept_is_a_fault(tmp_path: Path, stragglers: str, what: str) -> None:
    found = study_check.check(said(tmp_path, f"stragglers: {stragglers}\n"), today=TODAY).faults
    assert any(what in fault.what for fault in found), found


def test_it_is_part_of_the_digest_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = said(tmp_path, "stragglers: {policy: quorum, deadline: 90, quorum: 3}\n")
    found = study_check.check(path, today=TODAY)
    assert found.faults == ()
    assert any("shows its own total by the difference" in note.what for note in found.notes)
    it = found.enforced()
    assert it.stragglers == Stragglers("quorum", 3, 90.0)
    assert study_from(canonical(it)) == it
    assert cli(["study", "show", str(path)]) == 0
    assert "A round waits 90 s for all sites; then it goes on as soon as 3 have answered." in capsys.readouterr().out


def test_a_study_that_says_nothing_waits_and_keeps_its_digest(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    plain = study_check.check(study(tmp_path), today=TODAY).enforced()
    said_so = study_check.check(said(tmp_path / "other", "stragglers: {policy: wait}\n"), today=TODAY).enforced()
    assert plain.stragglers == Stragglers()
    assert digest(plain) == digest(said_so)
    assert b"stragglers" not in canonical(plain)
