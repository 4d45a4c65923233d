"""The code that is approved: the files of the methods, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples import prepare
from fivefold.errors import NotApproved
from fivefold.governance import approvals, method_code
from fivefold.study.digest import load_signed


def test_a_methods_files_are_its_own_and_what_they_import() -> None:
    glm, statistics = method_code.files_of(("glm",)), method_code.files_of(("statistics",))
    assert {"fivefold/algorithms/glm.py", "fivefold/algorithms/glm_newton.py", "fivefold/algorithms/cohort.py"} <= set(glm)
    assert "fivefold/algorithms/glm.py" not in statistics
    assert not [f for f in glm if not f.startswith(("fivefold/algorithms/", "fivefold/models/"))]
    assert "fivefold/models/linear.py" in method_code.files_of(("fedavg",))  # named in a table, imported late
    assert method_code.changed_files({"a": "1", "b": "1"}, {"b": "2", "c": "1"}) == ("a (gone)", "b (changed)", "c (new)")


def test_a_changed_file_of_a_method_voids_the_approval_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = tmp_path / "b", datetime.now(UTC)
    with contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare("breast", out)
    found, folder = load_signed(out / "study.signed.json"), out / "sites" / "fir"
    given = approvals.check_approval(folder, found.digest, now, study=found.study)
    monkeypatch.setattr("fivefold.__version__", "9.9.9")  # a release that leaves the methods as they were
    assert approvals.check_approval(folder, found.digest, now, study=found.study) == given

    other = dict(method_code.files_of_study(found.study)) | {"fivefold/algorithms/glm.py": "0" * 64}
    monkeypatch.setattr(approvals, "files_of_study", lambda study: other)
    with pytest.raises(NotApproved) as caught:
        approvals.check_approval(folder, found.digest, now, study=found.study)
    assert caught.value.rule == "approval_code_changed"
    assert "fivefold/algorithms/glm.py (changed)" in caught.value.message
    assert approvals.code_changes(folder, found.study, found.digest) == ("fivefold/algorithms/glm.py (changed)",)

    from fivefold.site.folder import read_private

    again = approvals.approve_again(folder, found.study, found.digest, read_private(folder / "keys" / "custodian.key"))
    assert (again.analyses, again.release) == (given.analyses, "9.9.9")
    approvals.check_approval(folder, found.digest, now, study=found.study)
    chain = sorted((folder / "state" / "approvals" / found.digest).glob("*.json"))
    assert json.loads(chain[-1].read_text())["facts"]["files"] == other
