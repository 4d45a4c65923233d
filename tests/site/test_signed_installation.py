"""A site that takes only a signed Fivefold: the installation as it was published computes, any other is refused by its file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import fivefold
from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.errors import PolicyRefuses, StatementInvalid
from fivefold.governance.approvals import approve
from fivefold.governance.custody import sign_policy
from fivefold.governance.installation import FILE, ROOT, installed
from fivefold.study.definition import OutputChecker, Outputs
from tools.sign_installation import main as sign

read = installed.__wrapped__
"""Without the memory of a process."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its signed list; the publisher's key lies beside it."""
    out = tmp_path_factory.mktemp("published")
    shutil.copytree(ROOT, out / "fivefold", ignore=shutil.ignore_patterns("__pycache__"))
    keys.write_key(out / "publisher.key", keys.new_key())
    sign(out / "publisher.key", out / "fivefold")
    return out


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published / "fivefold", tmp_path / "installed" / "fivefold"))


def test_an_installation_as_it_was_published(published: Path) -> None:
    found = read(published / "fivefold")
    assert found.version == fivefold.__version__
    assert found.signers == (keys.public_of(keys.read_key(published / "publisher.key")).hex(),)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda at: (at / "site/gate.py").write_text("def gate(): ...\n"), "its file site/gate.py was changed"),
        (lambda at: (at / "algorithms/mine.py").write_text(""), "its file algorithms/mine.py was added"),
        (lambda at: (at / "privacy/dp/rounding.py").unlink(), "its file privacy/dp/rounding.py is gone"),
        (lambda at: (at / FILE).unlink(), "without a signed list"),
        (lambda at: (at / FILE).write_text((at / FILE).read_text().replace("gate.py", "gait.py")), "was altered"),
        (lambda at: (at / FILE).write_text("{}"), "is not a signed statement"),
    ],
)
def test_any_other_is_named_by_its_file(copy: Path, change: Callable[[Path], object], told: str) -> None:
    change(copy)
    with pytest.raises(StatementInvalid) as found:
        read(copy)
    assert told in found.value.message


def test_a_site_takes_a_signed_one_alone(
    consortium: Any, now: datetime, copy: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = keys.public_of(keys.read_key(published / "publisher.key")).hex()

    def asked(key: str, version: int) -> None:
        consortium.rewrite(f"version: {version - 1}\n", f"version: {version}\n")
        path = consortium.site.path / "site.yaml"
        rule = f"settings: {{signed_by: [{key}]}}"
        lines = [rule if s.startswith("settings:") else s for s in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
        sign_policy(consortium.site.path, consortium.custodian, now=now)

    study, here = tmp_path / "s.signed.json", ["--site", str(consortium.site.path)]
    checkers = tuple(OutputChecker(n, "Bureau", keys.public_of(keys.new_key()).hex()) for n in ("Ada", "Bo"))
    signed = consortium.signed(outputs=Outputs(checkers=checkers))
    study.write_bytes(signed.to_bytes())

    def told_by(root: Path) -> tuple[int, str]:
        """What this copy of Fivefold says to the study."""
        done = subprocess.run(
            [sys.executable, "-m", "fivefold.cli.main", "policy", "test", str(study), *here], capture_output=True, text=True,
            timeout=60, check=False, cwd=root, env=os.environ | {"PYTHONPATH": str(root), "COLUMNS": "300"},
        )  # fmt: skip
        return done.returncode, done.stdout

    asked(publisher, 2)
    code, shown = told_by(copy.parent)
    assert "are signed by a publisher that this site admits" in shown
    assert "settings.signed_by" in shown
    (copy / "site" / "gate.py").write_text((copy / "site" / "gate.py").read_text() + "\n")
    altered, shown = told_by(copy.parent)
    assert (code, altered) == (0, 32)
    assert "its file site/gate.py was changed" in shown
    assert run(["policy", "test", str(study), *here]) == 32  # this working copy is nobody's release
    capsys.readouterr()
    with pytest.raises(PolicyRefuses) as refused:
        approve(consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now)
    assert refused.value.rule == "settings.signed_by"
    asked("ab" * 32, 3)
    (copy / "site" / "gate.py").write_text((ROOT / "site" / "gate.py").read_text())
    code, shown = told_by(copy.parent)
    assert code == 32
    assert "a key that this site does not admit" in shown
