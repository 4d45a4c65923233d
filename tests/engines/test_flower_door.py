"""Who knocks at the SuperLink with a strange key, and who was let in: from Flower's log into the coordinator's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.engines.flower.door import MOST_NAMED, Door, print_of
from fivefold.engines.flower.superlink import Coordinator, admit
from fivefold.errors import KeyProblem
from fivefold.records.audit import Entry, entries, verify
from fivefold.records.audit_report import chapter

OURS, THEIRS = (f"-----BEGIN PUBLIC KEY-----\n{name}\n-----END PUBLIC KEY-----\n".encode() for name in ("ours", "theirs"))


def knock(folder: Path, *keys: bytes, end: str = "\n") -> None:
    with (folder / "superlink.log").open("a") as file:
        for key in keys:
            line = f"ERROR : [/v1/fleet/activate-node][ApiError:2004] Attempted to register SuperNode with public key: {key!r}"
            file.write(f"{line}, exception: none{end}")


def met(folder: Path) -> list[Entry]:
    verify(folder / "audit.jsonl")
    return [e for e in entries(folder / "audit.jsonl") if e.event != "opened"]


def test_each_attempt_is_logged_once_and_a_site_that_was_let_in_is_no_stranger(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    assert admit(Coordinator(tmp_path), "basel", OURS)
    assert admit(Coordinator(tmp_path), "basel", OURS)
    door = Door(tmp_path)
    assert door.look([OURS]) == 0  # there is no log yet
    knock(tmp_path, THEIRS, OURS, THEIRS)
    knock(tmp_path, THEIRS, end="")
    assert door.look([OURS]) == 2  # the line that is being written is waited for
    knock(tmp_path, end="")
    with (tmp_path / "superlink.log").open("a") as file:
        file.write("\n")
    again = Door(tmp_path)  # the coordinator was started anew
    assert (again.look([OURS]), again.look([OURS])) == (1, 0)
    (tmp_path / "superlink.log").unlink()  # the file was begun anew
    knock(tmp_path, b"it's")
    assert again.look([OURS]) == 1
    first, *attempts = met(tmp_path)
    assert (first.event, dict(first.facts)) == ("site admitted", {"site": "basel", "key": print_of(OURS)})
    assert [(e.facts["attempts"], e.facts["keys"]) for e in attempts] == [
        (2, [print_of(THEIRS)]),
        (1, [print_of(THEIRS)]),
        (1, [print_of(b"it's")]),
    ]
    assert {chapter(e) for e in attempts} == {"authentication"}


def test_a_flood_is_one_entry_and_hostile_keys_are_bytes(tmp_path: Path) -> None:
    strange = [b"", b"'\"\\\n", bytes(range(256)), b"x" * 5000, *(bytes([n, n]) for n in range(2 * MOST_NAMED))]
    knock(tmp_path, *strange)
    door = Door(tmp_path)
    assert door.look([]) >= 2 * MOST_NAMED
    (entry,) = met(tmp_path)
    assert len(entry.facts["keys"]) == MOST_NAMED
    with (tmp_path / "superlink.log").open("ab") as file:
        file.write(b"y" * (3 << 20))  # a line without an end stops nothing
    knock(tmp_path, end="\n")
    with (tmp_path / "superlink.log").open("a") as file:
        file.write("\n")
    knock(tmp_path, THEIRS)
    assert sum(door.look([]) for _ in range(5)) == 1


def test_a_log_whose_key_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    Door(tmp_path)
    (tmp_path / "audit.key").unlink()
    with pytest.raises(KeyProblem, match="is gone, which signs"):
        Door(tmp_path)
