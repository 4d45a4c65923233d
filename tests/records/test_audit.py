"""Whatever happens to a log on disk is found; whatever stops an entry stops the act and leaves the log whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fivefold.auth import keys
from fivefold.errors import AuditBroken, FivefoldError, KeyProblem, RunError
from fivefold.records import audit
from fivefold.records.audit import AuditLog, verify

KEY = bytes(range(32))
PUBLIC = keys.public_of(KEY)


def small_log(folder: Path, key: bytes | None = KEY) -> Path:
    path = folder / "audit.jsonl"
    with AuditLog(path, key, "Örebro") as log:
        log.write("question", round=1, sites=["North", "East"], step="glm.score/1")
        log.write("release", round=1, persons=167, share=0.25)
        log.closed(status="completed")
    return path


def broken(path: Path, **more: object) -> bool:
    try:
        verify(path, **more)
    except AuditBroken:
        return True
    return False


@pytest.mark.parametrize("key", [KEY, None], ids=["signed", "unsigned"])
def test_every_changed_byte_of_log_and_head_is_found(tmp_path: Path, key: bytes | None) -> None:
    path = small_log(tmp_path, key)
    assert verify(path).closed
    for file in (path, tmp_path / "audit.jsonl.head"):
        whole = file.read_bytes()
        for position in range(len(whole)):
            for flip in (0x01, 0x20, 0x80):
                changed = bytearray(whole)
                changed[position] ^= flip
                file.write_bytes(changed)
                assert broken(path), f"{file.name}: byte {position} ^ {flip}"
        file.write_bytes(whole)
    assert verify(path).entries == 4


@pytest.mark.parametrize("key", [KEY, None], ids=["signed", "unsigned"])
def test_every_cut_off_end_is_found(tmp_path: Path, key: bytes | None) -> None:
    path = small_log(tmp_path, key)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert broken(path), f"cut off after {length} bytes"


def test_every_added_byte_is_found(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole) + 1):
        path.write_bytes(whole[:position] + b" " + whole[position:])
        assert broken(path), f"a byte added at {position}"


def test_removed_repeated_and_moved_entries_are_found_and_the_first_bad_line_is_named(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for i in range(len(lines)):
        for other in [lines[:i] + lines[i + 1 :], [*lines[:i], lines[i], *lines[i:]]]:
            path.write_bytes(b"".join(other))
            assert broken(path)
        for j in range(i):
            moved = list(lines)
            moved[i], moved[j] = moved[j], moved[i]
            path.write_bytes(b"".join(moved))
            assert broken(path)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(AuditBroken, match=r"line 2 of audit\.jsonl does not follow"):
        verify(path)


def test_an_entry_with_a_recomputed_chain_lacks_the_signature(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    rewritten = tmp_path / "rewritten"
    rewritten.mkdir()
    forged = rewritten / "audit.jsonl"
    with AuditLog(forged, keys.new_key(), "Örebro") as log:
        log.write("release", round=1, persons=1)
    lines, others = path.read_bytes().splitlines(keepends=True), forged.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + others[1])
    assert broken(path)
    assert verify(forged, None).entries == 2
    with pytest.raises(AuditBroken, match="is not signed by the key"):
        verify(forged, PUBLIC)


def test_a_missing_head_is_found(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    (tmp_path / "audit.jsonl.head").unlink()
    with pytest.raises(AuditBroken, match="head is missing"):
        verify(path)
    with pytest.raises(AuditBroken, match="head is missing"):
        AuditLog(path, KEY, "Örebro")


def test_a_log_put_back_as_a_whole_is_found_by_a_witness(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, KEY, "North") as log:
        log.write("one")
        shutil.copytree(tmp_path, old := tmp_path.parent / f"{tmp_path.name}-old")
        log.write("two")
        witnessed = log.head
    for name in ("audit.jsonl", "audit.jsonl.head"):
        shutil.copy(old / name, tmp_path / name)
    assert verify(path).entries == 2
    with pytest.raises(AuditBroken, match="cut off"):
        verify(path, head=witnessed)
    with AuditLog(path, KEY, "North") as log:
        log.write("another two")
    with pytest.raises(AuditBroken, match="written anew"):
        verify(path, head=witnessed)


def test_the_head_of_another_log_is_found(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(small_log(other).with_name("audit.jsonl.head"), tmp_path / "audit.jsonl.head")
    assert broken(path)


def test_a_report_tells_what_is_there(tmp_path: Path) -> None:
    report = verify(small_log(tmp_path), PUBLIC)
    assert (report.owner, report.entries, report.closed, report.beyond_head) == ("Örebro", 4, True, 0)
    assert report.keys == (PUBLIC.hex(),)
    assert report.events == {"opened": 1, "question": 1, "release": 1, "closed": 1}
    assert [e.event for e in audit.entries(tmp_path / "audit.jsonl")] == ["opened", "question", "release", "closed"]
    assert report.first <= report.last
    assert report.first.endswith("Z")


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.jsonl"
    for number in range(3):
        with AuditLog(path, KEY, "North") as log:
            assert log.write("again", number=number).seq == number + 2
    assert verify(path).entries == 4


def test_a_torn_last_line_is_reported_by_verify_and_repaired_at_the_next_opening(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"ques')
    assert broken(path)
    with AuditLog(path, KEY, "Örebro") as log:
        log.write("next")
    *_, repaired, following = audit.entries(path)
    assert (repaired.event, dict(repaired.facts)) == ("repaired", {"torn_bytes": 14})
    assert following.event == "next"
    assert path.read_bytes().startswith(whole)
    verify(path, PUBLIC)


def test_a_crash_between_a_line_and_its_head_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, KEY, "North") as log:
        old = (tmp_path / "audit.jsonl.head").read_bytes()
        log.write("durable")
    (tmp_path / "audit.jsonl.head").write_bytes(old)
    assert verify(path).beyond_head == 1
    with AuditLog(path, KEY, "North") as log:
        log.write("after")
    assert verify(path).beyond_head == 0
    assert [e.event for e in audit.entries(path)] == ["opened", "durable", "after"]


@pytest.mark.parametrize("left", [0, 10, None], ids=["nothing", "a torn line", "a whole line"])
def test_a_crash_in_the_very_first_entry_is_no_broken_log(tmp_path: Path, left: int | None) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path, KEY, "North").close()
    (tmp_path / "audit.jsonl.head").rename(tmp_path / "audit.jsonl.head.new")
    path.write_bytes(path.read_bytes()[:left])
    with AuditLog(path, KEY, "North") as log:
        log.write("question")
    assert verify(path, PUBLIC).entries == 2


def test_an_altered_end_is_found_at_opening(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    whole = path.read_bytes()
    for damage in (whole.replace(b"completed", b"complete!"), whole[:-1], whole[:-2] + b"\n", b""):
        path.write_bytes(damage)
        with pytest.raises(AuditBroken):
            AuditLog(path, KEY, "Örebro")
        assert path.read_bytes() == damage


def test_a_log_that_is_replaced_while_it_is_open_takes_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, KEY, "North") as log:
        shutil.copy(path, tmp_path / "copy")
        os.replace(tmp_path / "copy", path)
        with pytest.raises(AuditBroken, match="replaced while it was open"):
            log.write("question")


def test_another_key_or_owner_cannot_go_on(tmp_path: Path) -> None:
    path = small_log(tmp_path)
    with pytest.raises(KeyProblem):
        AuditLog(path, keys.new_key(), "Örebro")
    with pytest.raises(KeyProblem):
        AuditLog(path, None, "Örebro")
    with pytest.raises(AuditBroken):
        AuditLog(path, KEY, "East")
    assert verify(path).entries == 4


def test_a_key_rotates_by_an_entry_that_the_old_key_signs(tmp_path: Path) -> None:
    path, new = tmp_path / "audit.jsonl", bytes(reversed(KEY))
    with AuditLog(path, KEY, "North") as log:
        log.write("before")
        log.rotate(new)
        log.write("after")
    with pytest.raises(KeyProblem):
        AuditLog(path, KEY, "North")
    with AuditLog(path, new, "North") as log:
        log.write("later")
    report = verify(path, keys.public_of(new))
    assert report.keys == (PUBLIC.hex(), keys.public_of(new).hex())
    assert report.entries == 5


def test_a_crash_while_a_key_rotates_locks_nobody_out(tmp_path: Path) -> None:
    path, new = tmp_path / "audit.jsonl", bytes(reversed(KEY))
    with AuditLog(path, KEY, "North") as log:
        old = (tmp_path / "audit.jsonl.head").read_bytes()
        log.rotate(new)
    (tmp_path / "audit.jsonl.head").write_bytes(old)
    with AuditLog(path, new, "North") as log:
        log.write("after")
    assert verify(path, keys.public_of(new)).entries == 3


@pytest.mark.parametrize(
    "fact",
    [b"key", float("nan"), float("inf"), 1 << 60, np.arange(3), object(), {1: "a"}, "\ud800", {"a": [b""]}],
    ids=lambda fact: type(fact).__name__,
)
def test_a_fact_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path, fact: object) -> None:
    with AuditLog(tmp_path / "audit.jsonl", KEY, "North") as log:
        with pytest.raises(TypeError, match="fact"):
            log.write("event", fact=fact)
        assert log.head.seq == 1
    assert verify(tmp_path / "audit.jsonl").entries == 1


def test_an_event_needs_a_name_of_its_own_and_a_closed_file_takes_none(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", KEY, "North")
    for event in ("", "opened", "key_changed"):
        with pytest.raises(ValueError, match="event"):
            log.write(event)
    with pytest.raises(ValueError, match="too long"):
        log.write("event", text="x" * (1 << 20))
    log.close()
    with pytest.raises(RunError, match="not open"):
        log.write("event")
    assert verify(tmp_path / "audit.jsonl").entries == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=st.dictionaries(st.text(min_size=1).filter(lambda s: s not in ("self", "event")), json_values, max_size=4))
def test_any_json_facts_come_back_as_they_were_written(tmp_path: Path, facts: dict[str, object]) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, KEY, "North") as log:
        log.write("facts", **facts)
    *_, last = audit.entries(path)
    assert last.facts == facts
    verify(path)


def test_a_file_that_is_not_there_or_not_a_log_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        verify(tmp_path / "none.jsonl")
    (tmp_path / "notes.txt").write_text("hello\n")
    for action in (lambda: verify(tmp_path / "notes.txt"), lambda: AuditLog(tmp_path / "notes.txt", KEY, "North")):
        with pytest.raises(FivefoldError) as found:
            action()
        assert found.value.hint
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        AuditLog(tmp_path / "file" / "audit.jsonl", KEY, "North")


def test_a_log_that_is_closed_within_an_entry_lets_go_quietly(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", None, "site")
    with log._exclusively():  # as Ctrl-C leaves it
        log.close()
