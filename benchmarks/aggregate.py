"""Adding up 100 updates of 10^7 float32: peak memory, and the pace against a plain addition in place.

python -m benchmarks.aggregate
"""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np

from benchmarks.measure import Figures, report, seconds
from fivefold.privacy.secagg.ring import RING32, add_into, from_bytes, to_bytes, zeros

WIDTH, SITES = 10_000_000, 100
TARGETS = {"updates_of_memory": "< 3", "share_of_plain_add": ">= 0.5"}


def main() -> None:
    peaks = {n: int(subprocess.run([sys.executable, "-m", "benchmarks.aggregate", str(n)], check=True, capture_output=True,
                                   text=True).stdout) for n in (10, SITES)}  # fmt: skip
    one, update = zeros(WIDTH, RING32), np.ones(WIDTH, dtype=np.float32)
    wire, plain = to_bytes(one + np.uint32(1), RING32), np.zeros(WIDTH, dtype=np.float32)

    def added() -> None:
        for _ in range(10):
            add_into(one, from_bytes(wire, WIDTH, RING32), RING32)

    ours = min(seconds(added) for _ in range(5))
    bare = min(seconds(lambda: [np.add(plain, update, out=plain) for _ in range(10)]) for _ in range(5))
    size, moved = 4 * WIDTH, 10 * 4 * WIDTH / 1e9
    print(f"{SITES} updates of {WIDTH:,} float32 ({size / 1e6:.0f} MB each) from their bytes into one sum.")
    print(f"This: {moved / ours:.1f} GB/s; a plain addition in place: {moved / bare:.1f} GB/s.")
    print(f"Memory at the peak: {peaks[10] / size:.2f} updates for 10 sites, {peaks[SITES] / size:.2f} for {SITES}.\n")
    figures: Figures = {
        "updates_of_memory": peaks[SITES] / size, "share_of_plain_add": bare / ours,
        "updates_of_memory_10_sites": peaks[10] / size,
        "gb_per_s": moved / ours, "plain_gb_per_s": moved / bare,
    }  # fmt: skip
    report("aggregate", figures, TARGETS)


def peak(sites: int) -> int:
    """Bytes at the peak beyond what the interpreter took, of a coordinator that receives, adds and lets go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = zeros(WIDTH, RING32)
    for i in range(sites):
        received = bytearray(4 * WIDTH)
        np.frombuffer(received, dtype=np.uint32)[:] = i
        add_into(total, from_bytes(memoryview(received), WIDTH, RING32), RING32)
        del received
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(peak(int(sys.argv[1])))
    else:
        main()
