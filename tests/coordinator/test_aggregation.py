"""The secure sum end to end: every total is the plain sum over its survivors, whoever drops out where."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.privacy.secagg.ring import RING32, RING128, Ring
from tests.site.secure_sum_bench import Bench, integers


@pytest.mark.parametrize("adversary", ["active", "curious"])
@pytest.mark.parametrize("ring", [RING32, RING128], ids=["ring32", "ring128"])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_total_is_the_plain_sum(tmp_path: Path, n: int, ring: Ring, adversary) -> None:
    bench = Bench(tmp_path, n, adversary=adversary, ring=ring)
    total, _ = bench.round(bench.open_keys())
    assert integers(total.vector) == bench.total(bench.names)
    assert total.survivors == bench.names
