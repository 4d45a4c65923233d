"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.named_tests import pytest_configure

__all__ = ["pytest_configure"]

# A busy machine is no fault: neither a slow example nor slow drawing of examples fails a property.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds data/heart, four real hospitals; FIVEFOLD_SHARED names it. CI must have it."""
    folder = Path(os.environ.get("FIVEFOLD_SHARED", ""))
    if not os.environ.get("FIVEFOLD_SHARED") or not (folder / "data" / "heart").is_dir():
        said = "FIVEFOLD_SHARED does not name a folder with data/heart (UCI heart disease, four hospitals)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return folder
