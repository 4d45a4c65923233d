"""A run folder as a run leaves it, and the validator's environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.environments import environment

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "results")]


@pytest.fixture(scope="session")
def validator() -> Path:
    """The command rocrate-validator, in the environment that the project's script makes if it is not there."""
    named = os.environ.get("FIVEFOLD_ROCRATE_VALIDATOR")
    return Path(named) if named else environment("crate") / "rocrate-validator"
