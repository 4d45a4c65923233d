"""What is imported when: a newcomer's first commands must not wait for libraries that they do not use."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = {
    "dp_accounting", "flwr", "lifelines", "matplotlib", "pandas", "pint", "pyarrow", "rocrate", "scipy", "sklearn",
    "sqlalchemy", "statsmodels", "torch",
}  # fmt: skip

LOADED = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
HELP = f"from fivefold.cli.main import run; code = run(['--help']); {LOADED}; sys.exit(code)"


def loaded(code: str) -> set[str]:
    """The top-level modules of a process that has run some code."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_heavy_list_is_told_from_the_rest() -> None:
    assert loaded(f"import scipy; {LOADED}") & HEAVY == {"scipy"}


def test_import_of_the_package_loads_nothing_heavy() -> None:
    assert not loaded(f"import fivefold; {LOADED}") & (HEAVY | {"numpy", "pydantic", "typer"})


def test_help_loads_nothing_heavy() -> None:
    assert not loaded(HELP) & (HEAVY | {"numpy", "pydantic"})


@pytest.mark.parametrize("noun", ["study", "site", "keys", "coordinator", "run", "audit", "crate"])
def test_the_help_of_each_command_loads_nothing_heavy(noun: str) -> None:
    code = f"from fivefold.cli.main import run; code = run(['{noun}', '--help']); {LOADED}; sys.exit(code)"
    assert not loaded(code) & HEAVY


def test_algorithms_have_no_clock_no_chance_and_no_files() -> None:
    """A method is replayed at every site: what it computes may hang on nothing but the study and the aggregates."""
    import ast

    forbidden = {"time", "random", "os", "pathlib", "threading", "datetime", "secrets", "asyncio", "socket", "subprocess"}
    folder = Path(__file__).parent.parent / "fivefold" / "algorithms"
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.partition(".")[0] for n in names} & forbidden, f"{file.name}, line {getattr(node, 'lineno', 0)}"


def test_no_pickle_anywhere() -> None:
    """Bytes from another institution must never be able to run code."""
    folder = Path(__file__).parent.parent / "fivefold"
    words = ("import pickle", "from pickle", "import marshal", "import shelve", "import dill", "import cloudpickle")
    for file in folder.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [w for w in words if w in text], file


def test_every_dependency_is_pinned() -> None:
    """The constraints file names a version of everything that pyproject.toml asks for, but for torch, which CI does not use."""
    import re

    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(r for e in project["optional-dependencies"].values() for r in e)]
    names = {re.split(r"[\[<>=!~ ;]", r)[0].lower().replace("_", "-") for r in asked} - {"fivefold", "torch"}
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names - pinned == set()
