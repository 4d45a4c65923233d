"""Peak memory of a coordinator that adds up n masked updates and unmasks them, streaming.

    python -m benchmarks.secure_sum_memory N

Run by `benchmarks.secure_sum`, in a process of its own for each n, since a process never gives its peak back. Prints the peak
beyond what the process had when one update had been through, in bytes.
"""

from __future__ import annotations

import hashlib
import resource
import sys

import numpy as np

from fivefold.privacy.secagg.masks import apply_masks, unmask
from fivefold.privacy.secagg.ring import RING32, add_into, from_bytes, to_bytes, zeros

WIDTH = 1_000_000


def seed(site: int) -> bytes:
    return hashlib.sha256(site.to_bytes(4, "big")).digest()


def received(site: int) -> bytes:
    """What comes in from a site: an update of ones under the site's own mask."""
    vector = np.ones(WIDTH, dtype=np.uint32)
    apply_masks(vector, RING32, [(seed(site), 1)])
    return to_bytes(vector, RING32)


def total_of(sites: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    total = zeros(WIDTH, RING32)
    for site in range(sites):
        add_into(total, from_bytes(received(site), WIDTH, RING32), RING32)
    unmask(total, RING32, (seed(site) for site in range(sites)))
    return total


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    n = int(sys.argv[1])
    total_of(1)
    before = peak()
    assert (total_of(n) == n).all()
    print(peak() - before)
