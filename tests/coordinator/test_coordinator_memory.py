"""The coordinator's memory is that of a few vectors, however many sites send theirs; the sites live in another process."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.privacy.secagg.ring import RING32
from fivefold.privacy.secagg.thresholds import Thresholds
from tests.site.pipes import SitesElsewhere
from tests.site.secure_sum_bench import QUESTION, RUN, STUDY

LENGTH = 250_000
UPDATE = LENGTH * RING32.element_bytes


def peak(folder: Path, sites: int) -> int:
    """Bytes at the worst moment of two rounds of model updates, tasks of an update's size going out."""
    engine = SitesElsewhere(folder, sites, LENGTH)
    weights = bytes(UPDATE)
    records: list[int] = []
    rounds = SecureRounds(engine.roster, Thresholds(sites), STUDY, RUN, engine.exchange)
    tracemalloc.start()
    try:
        for round in (1, 2):
            total = rounds.sum(
                round, QUESTION, RING32, LENGTH, lambda site: weights, before_unmask=lambda r: records.append(len(r))
            )
            assert len(total.survivors) == sites
            assert total.transcript is None
        worst = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        engine.close()
    assert min(records) > UPDATE
    assert max(records) < 2 * UPDATE  # the masked sum alone: no site's update
    return worst


def test_peak_does_not_grow_with_the_sites(tmp_path: Path) -> None:
    peaks = {n: peak(tmp_path / str(n), n) for n in (3, 6, 15)}
    assert peaks[3] < 10 * UPDATE, peaks
    assert peaks[6] < peaks[3] + UPDATE / 2, peaks
    assert peaks[15] < peaks[3] + UPDATE / 2, peaks
