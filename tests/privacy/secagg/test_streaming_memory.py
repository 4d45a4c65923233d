"""A coordinator's memory is one vector and a small buffer, however many sites there are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fivefold.privacy.secagg.masks import apply_masks, unmask
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, add_into, from_bytes, to_bytes, zeros

WIDTH = 100_000


def masked(site: int, ring: Ring) -> bytes:
    vector = zeros(WIDTH, ring)
    vector[:] = 1
    apply_masks(vector, ring, [(site.to_bytes(32, "big"), 1)])
    return to_bytes(vector, ring)


def peak(sites: int, ring: Ring) -> int:
    """Bytes at the worst moment of adding and unmasking, beyond one message and one total."""
    total = zeros(WIDTH, ring)
    tracemalloc.start()
    for site in range(sites):
        add_into(total, from_bytes(masked(site, ring), WIDTH, ring), ring)
    unmask(total, ring, (site.to_bytes(32, "big") for site in range(sites)))
    worst = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (total == sites).all()
    return worst


@pytest.mark.parametrize("ring", [RING32, RING128], ids=["32", "128"])
def test_peak_does_not_grow_with_the_sites(ring: Ring) -> None:
    few, many = peak(5, ring), peak(300, ring)
    one_update = WIDTH * ring.element_bytes
    assert many < few + one_update / 2  # 295 updates would be 295 of these


def test_unmasking_makes_no_second_vector() -> None:
    total = np.zeros(4_000_000, dtype=np.uint32)
    tracemalloc.start()
    unmask(total, RING32, [bytes([i]) * 32 for i in range(40)])
    worst = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert worst < total.nbytes / 8
