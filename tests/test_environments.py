"""`tools/make_env.sh`: an environment of its own, or one to which `.venv` lends its packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The script in a project of its own, whose `.venv` is the environment of these tests."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "make_env.sh", tmp_path / "tools")
    (tmp_path / "constraints.txt").write_text("")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def make(tree: Path, name: str) -> subprocess.CompletedProcess[str]:
    words = ["sh", str(tree / "tools" / "make_env.sh"), name]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def imports(python: Path, package: str) -> bool:
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True, timeout=60, check=False).returncode == 0


def test_it_is_made_once_and_anew_where_what_it_holds_changes(tree: Path) -> None:
    wanted, env = tree / "tools" / "one-requirements.txt", tree / ".venv-one"
    wanted.write_text("# all its own\n")
    done = make(tree, "one")
    assert (done.returncode, done.stdout) == (0, "Making .venv-one\n"), done.stderr
    assert not imports(env / "bin" / "python", "cbor2")
    (env / "marker").touch()
    wanted.write_text("# the same, said otherwise\n")
    assert make(tree, "one").stdout == ""
    assert (env / "marker").exists()
    wanted.write_text("# lent: all else comes from .venv\n")
    assert make(tree, "one").stdout == "Making .venv-one\n"
    assert not (env / "marker").exists()
    assert imports(env / "bin" / "python", "cbor2")


def test_what_is_listed_may_differ_from_what_is_lent(tree: Path) -> None:
    """And may be all that is fetched, whatever it says that it needs."""
    wheel = tree / "whole-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("whole.py", "")
        file.writestr(
            "whole-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: whole\nVersion: 1\nRequires-Dist: fivefold==0\n"
        )
        file.writestr("whole-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("whole-1.dist-info/RECORD", "")
    (tree / "constraints.txt").write_text("pluggy==0.0.1\nPip==0.0.2\n")
    (tree / "tools" / "other-requirements.txt").write_text(f"# lent, listed alone\npip=={version('pip')}\n{wheel}\n")
    done = make(tree, "other")
    assert done.returncode == 0, done.stderr
    assert (tree / ".venv-other" / "constraints.txt").read_text() == "pluggy==0.0.1\n"
    assert imports(tree / ".venv-other" / "bin" / "python", "whole")


def test_what_is_missing_is_said_in_one_sentence(tree: Path) -> None:
    done = make(tree, "nobody")
    assert (done.returncode, done.stderr) == (1, "make_env: there is no tools/nobody-requirements.txt\n")
    (tree / "tools" / "peer-requirements.txt").write_text("# lent\n")
    (tree / ".venv").unlink()
    done = make(tree, "peer")
    assert done.returncode == 1
    assert "make .venv/made-for-test" in done.stderr


def test_make_knows_environments_that_can_be_made() -> None:
    listed = re.search(r"^OTHERS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed is not None
    for name in listed[1].split():
        assert (ROOT / "tools" / f"{name}-requirements.txt").is_file()
