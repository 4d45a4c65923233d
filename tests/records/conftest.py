"""A run folder as a run leaves it, and the validator's environment."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "results")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def validator() -> Path:
    """The command rocrate-validator, in the environment that the project's script makes if it is not there."""
    named = os.environ.get("FIVEFOLD_ROCRATE_VALIDATOR")
    if named:
        return Path(named)
    with (Path(tempfile.gettempdir()) / f"fivefold-crate-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may start at once
        environment = os.environ | {"PYTHON": sys.executable}
        subprocess.run(["sh", str(ROOT / "tools" / "make_crate_env.sh")], check=True, env=environment, timeout=600)
    return ROOT / ".venv-crate" / "bin" / "rocrate-validator"
