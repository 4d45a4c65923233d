"""The environments of tools and platforms that stand beside `.venv`, made by the project's script where they are not there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(name: str) -> Path:
    """The folder of commands of `.venv-NAME`. Several test processes may ask at once: one makes it, the others wait."""
    with (Path(tempfile.gettempdir()) / f"fivefold-{name}-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words, variables = ["sh", str(ROOT / "tools" / "make_env.sh"), name], os.environ | {"PYTHON": sys.executable}
        subprocess.run(words, check=True, env=variables, timeout=900)
    return ROOT / f".venv-{name}" / "bin"
