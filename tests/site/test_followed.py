"""A site's own journal and snapshots: totals that a snapshot holds are dropped, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fivefold.errors import JournalProblem
from fivefold.records.journal import read, rewrite
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.site import followed
from fivefold.study.definition import Analysis, Privacy, Study
from tests.algorithms import plain, real_data
from tests.plain_study import sites_of, study_of


@pytest.fixture(scope="module")
def run() -> tuple[Study, list[Outcome]]:
    """A study of a description, a training and another description, with the outcome of every round."""
    _, setting, tables = real_data.breast()
    analyses = (
        Analysis("first", "statistics", variables=("mean_area",), options={"quantiles": []}),
        Analysis("net", "fedopt", "malignant ~ mean_area", options={"rounds": 7, "snapshot_every": 3}),
        Analysis("last", "statistics", variables=("mean_texture",), options={"quantiles": []}),
    )
    used = dict.fromkeys(("mean_area", "mean_texture", "malignant"), "why")
    privacy = Privacy(max_rows_per_site=setting.max_rows_per_site, minimum_persons=setting.minimum_persons)
    study = study_of(
        *analyses, sites=sites_of(*setting.sites), dictionary=setting.dictionary, person="p", variables=used, privacy=privacy
    )
    cursor, out = Cursor(study), list[Outcome]()
    while cursor.open is not None:
        answered = [plain.aggregate(s, tables, tables, setting) for s in cursor.open.sums]
        out.append(Outcome(tuple(dict(a.totals) for a in answered), tuple(setting.sites)))
        cursor.feed(out[-1])
    assert list(cursor.results) == ["first", "net", "last"]
    return study, out


def opened(place: Path, study: Study, settled: list[int]) -> tuple[Cursor, int]:
    cursor = followed.cursor_at(place, lambda kept: Cursor(study, checkpoints=kept))
    return cursor, followed.retold(place, cursor, lambda n, sites: settled.append(n))


def test_a_site_that_restarts_after_any_round_goes_on_from_its_snapshot(
    tmp_path: Path, run: tuple[Study, list[Outcome]]
) -> None:
    study, outcomes = run
    whole = Cursor(study)
    for one in outcomes:
        whole.feed(one)
    for i, one in enumerate(outcomes, 1):
        settled: list[int] = []
        cursor, known = opened(tmp_path, study, settled)
        assert known == i - 1
        assert settled == list(range(1, i)), "what a step kept is settled for every round, also before a snapshot"
        assert cursor.open is not None
        assert cursor.open.round == i
        followed.note(tmp_path, i, one)
        cursor.feed(one)
        followed.keep(tmp_path, cursor)
    cursor, known = opened(tmp_path, study, [])
    assert (cursor.open, known) == (None, len(outcomes))
    assert cursor.results == whole.results
    held = [r["round"] for r in read(tmp_path / followed.AGGREGATES) if "totals" in r]
    taken = whole.checkpoints["net"]
    assert taken.begun >= 1
    assert held == [n for n in range(1, len(outcomes) + 1) if not taken.begun < n <= taken.round]
    assert taken.round - taken.begun >= 6
    followed.forget(tmp_path)
    assert not list((tmp_path / followed.SNAPSHOTS).iterdir())


def test_a_crash_before_the_totals_are_dropped_changes_nothing(tmp_path: Path, run: tuple[Study, list[Outcome]]) -> None:
    study, outcomes = run
    cursor = Cursor(study)
    for i, one in enumerate(outcomes[:8], 1):
        followed.note(tmp_path, i, one)
        cursor.feed(one)
        if cursor.taken is not None:
            followed.Checkpoints(tmp_path / followed.SNAPSHOTS).keep(cursor.taken)
    again, known = opened(tmp_path, study, [])
    assert known == 8
    assert again.open is not None
    assert cursor.open is not None
    assert np.array_equal(again.open.sums[0].arguments["weights"], cursor.open.sums[0].arguments["weights"])


def test_a_snapshot_that_is_gone_or_newer_than_the_journal_is_told(tmp_path: Path, run: tuple[Study, list[Outcome]]) -> None:
    study, outcomes = run
    cursor = Cursor(study)
    for i, one in enumerate(outcomes[:8], 1):
        followed.note(tmp_path, i, one)
        cursor.feed(one)
        followed.keep(tmp_path, cursor)
    journal = (tmp_path / followed.AGGREGATES).read_bytes()
    rewrite(tmp_path / followed.AGGREGATES, list(read(tmp_path / followed.AGGREGATES))[:4])
    with pytest.raises(JournalProblem, match="ends before its snapshot"):
        opened(tmp_path, study, [])
    (tmp_path / followed.AGGREGATES).write_bytes(journal)
    followed.forget(tmp_path)
    with pytest.raises(JournalProblem, match="snapshot at this site is gone"):
        opened(tmp_path, study, [])
