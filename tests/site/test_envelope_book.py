"""The envelope at a site: each variation charged once, durably, and no more than the study allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.errors import JournalProblem, NotApproved
from fivefold.site.envelope_book import book, charge, charged, room
from fivefold.study.definition import Analysis
from fivefold.study.envelope import Variation


def variation(name: str) -> Variation:
    return Variation("ab" * 32, "model", Analysis(name, "glm", "y ~ x"), b"s" * 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return book(tmp_path, "ab" * 32)


def test_each_once_and_no_more_than_fits(path: Path) -> None:
    assert charged(path) == ()
    assert charge(path, variation("a"), 2)
    assert not charge(path, variation("a"), 2), "the same statement is asked again after a crash"
    assert charge(path, variation("b"), 2)
    assert [(one.name, one.varies) for one in charged(path)] == [("a", "model"), ("b", "model")]
    assert not charge(path, variation("a"), 2), "what was charged is answered again"
    with pytest.raises(NotApproved, match="allows 2 variations") as refused:
        charge(path, variation("c"), 2)
    assert refused.value.rule == "envelope_fits"
    assert len(charged(path)) == 2


def test_room_is_asked_before_a_row_is_read(path: Path) -> None:
    room(path, [variation("a"), variation("b")], 2)
    with pytest.raises(NotApproved):
        room(path, [variation("a"), variation("b"), variation("c")], 2)
    charge(path, variation("a"), 2)
    room(path, [variation("a"), variation("b")], 2)
    with pytest.raises(NotApproved):
        room(path, [variation("b"), variation("c")], 2)
    assert len(charged(path)) == 1, "asking charges nothing"


def test_a_damaged_book_is_no_empty_book(path: Path) -> None:
    charge(path, variation("a"), 3)
    charge(path, variation("b"), 3)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(JournalProblem):
        charge(path, variation("c"), 3)
