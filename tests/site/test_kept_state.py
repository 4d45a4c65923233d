"""What a step keeps between rounds counts only for rounds whose sum holds this site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.errors import AnswerMalformed
from fivefold.protocol.questions import STATE, Field, Sum, site_step
from fivefold.replay.cursor import Asked
from fivefold.site.kept_state import KeptState, computed
from fivefold.study.definition import Analysis
from fivefold.study.table import Table

KEY = "fit/0/test.drift/1"


@site_step("test.drift", keeps_state=True)
def drift(table: Any, *, by: float, state: Any) -> dict[str, Any]:
    """Answers with what it was and keeps it moved on."""
    before = np.zeros(2) if state is None else state["c"]
    return {"was": before, STATE: {"c": before + by}}


@site_step("test.faulty", keeps_state=True)
def faulty(table: Any, *, by: float, state: Any) -> dict[str, Any]:
    return {"was": np.zeros(2), STATE: {"c": "text"}}


ASKED = Asked(1, Analysis("fit", "test"), "test", Sum(drift, (Field("was", "real", 10.0, (2,)),), {"by": 1.0}))
NO_TABLE: Table = None


def played(kept: KeptState, round: int, by: float, survived: bool | None) -> float:
    """One attempt at a round; None: it is lost before anybody learns how it ended. Returns the answer."""
    answer, states = computed(replace(ASKED, round=round), [{"by": by}], NO_TABLE, kept.committed)
    assert set(answer) == {"was"}
    kept.stage(round, states)
    if survived is not None:
        kept.settle(round, survived)
    return float(answer["was"][0])


def test_a_round_that_counted_is_the_next_ones_beginning(tmp_path: Path) -> None:
    kept = KeptState(tmp_path / "kept")
    assert [played(kept, r, 1.0, True) for r in (1, 2, 3)] == [0.0, 1.0, 2.0]


def test_a_round_without_this_site_leaves_no_trace(tmp_path: Path) -> None:
    kept = KeptState(tmp_path / "kept")
    assert [played(kept, 1, 1.0, True), played(kept, 2, 5.0, False), played(kept, 3, 1.0, True)] == [0.0, 1.0, 1.0]


def test_a_new_attempt_begins_where_the_lost_one_began(tmp_path: Path) -> None:
    kept = KeptState(tmp_path / "kept")
    played(kept, 1, 1.0, True)
    assert played(kept, 2, 7.0, None) == 1.0
    assert played(kept, 2, 2.0, True) == 1.0
    assert played(kept, 3, 1.0, None) == 3.0


def test_it_outlives_the_process_and_may_be_settled_twice(tmp_path: Path) -> None:
    played(KeptState(tmp_path / "kept"), 1, 4.0, None)
    for _ in range(2):
        KeptState(tmp_path / "kept").settle(1, True)
    assert played(KeptState(tmp_path / "kept"), 2, 1.0, None) == 4.0
    KeptState(tmp_path / "kept").settle(1, True)  # a replay of an earlier round does not touch the later one
    assert played(KeptState(tmp_path / "kept"), 2, 1.0, None) == 4.0


def test_it_dies_with_the_run_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    kept = KeptState(tmp_path / "kept")
    played(kept, 1, 1.0, True)
    (path,) = (tmp_path / "kept" / "committed").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    kept.close()
    assert not (tmp_path / "kept").exists()
    assert kept.committed(KEY) is None


def test_a_state_that_is_no_mapping_of_arrays(tmp_path: Path) -> None:
    asked = replace(ASKED, question=Sum(faulty, ASKED.sums[0].fields, {"by": 1.0}))
    with pytest.raises(AnswerMalformed):
        computed(asked, [{"by": 1.0}], NO_TABLE, KeptState(tmp_path).committed)
