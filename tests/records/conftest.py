"""A run folder as a run leaves it, and the validator's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fivefold.records.crate import write_crate
from tests.environments import environment
from tests.records.run_values import run_folder


@pytest.fixture(scope="session")
def validator() -> Path:
    """The command rocrate-validator, in the environment that the project's script makes if it is not there."""
    named = os.environ.get("FIVEFOLD_ROCRATE_VALIDATOR")
    return Path(named) if named else environment("crate") / "rocrate-validator"


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "lung"
    write_crate(folder, run_folder(folder))
    return folder
