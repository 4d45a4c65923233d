"""Heads that others hold: a log that was rewritten, cut or put back, and an owner who told two stories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fivefold.auth import keys
from fivefold.cli.audit import app
from fivefold.errors import AuditBroken, ProtocolViolation, RunError
from fivefold.protocol.messages import Advert, Roster
from fivefold.records.audit import AuditLog, read_head
from fivefold.records.audit_entries import Head
from fivefold.records.lodged import lodge, read_lodged
from fivefold.records.witness import HEADS, against, packed, told, unpacked
from fivefold.site.witnessing import Witness

KEYS = {name: bytes([n]) * 32 for n, name in enumerate(("alder", "birch", "coordinator"), 1)}


def log(place: Path, owner: str = "alder", events: int = 4, key: bytes | None = None) -> Head:
    with AuditLog(place, key or KEYS[owner], owner) as it:
        for n in range(events):
            it.write("ask", round=n)
        return it.head


def saw(place: Path, owner: str, run: str = "r1", **heads: Head) -> None:
    """The owner of a log notes what it was shown."""
    facts: dict[str, Any] = {"sites": {n: told(h) for n, h in heads.items() if n != "coordinator"}}
    if "coordinator" in heads:
        facts["coordinator"] = told(heads["coordinator"])
    with AuditLog(place, KEYS[owner], owner) as it:
        it.write(HEADS, run=run, **facts)


def anew(place: Path, *args: Any, **more: Any) -> None:
    place.unlink()
    place.with_name(place.name + ".head").unlink()
    log(place, *args, **more)


def test_a_head_travels_in_144_bytes_and_is_its_owners(tmp_path: Path) -> None:
    head = log(tmp_path / "a")
    data = packed(head)
    assert len(data) == 144
    assert unpacked(data, "alder", keys.public_of(KEYS["alder"])) == head
    other = packed(log(tmp_path / "b", "birch"))
    flipped = [data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :] for n in range(0, 144, 7)]
    for false, name, key in [(data, "birch", None), (other, "alder", None), (data[:-1], "alder", None), (b"", "alder", None)]:
        with pytest.raises(ProtocolViolation, match="not signed by its owner"):
            unpacked(false, name, key)
    for false in flipped:
        with pytest.raises(ProtocolViolation):
            unpacked(false, "alder")
    with pytest.raises(ProtocolViolation):
        unpacked(other, "birch", keys.public_of(KEYS["alder"]))


def test_an_opened_log_gives_a_signed_head(tmp_path: Path) -> None:
    log(tmp_path / "a")
    (tmp_path / "a.head.kept").write_bytes((tmp_path / "a.head").read_bytes())
    head = log(tmp_path / "a", events=1)
    shutil.copy(tmp_path / "a.head.kept", tmp_path / "a.head")  # as a crash between line and head leaves it
    with AuditLog(tmp_path / "a", KEYS["alder"], "alder") as it:
        assert it.head == head


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Birch holds heads of alder's log at lines 5 and 9; alder has 12."""
    mine, theirs = tmp_path / "alder.jsonl", tmp_path / "birch.jsonl"
    saw(theirs, "birch", alder=log(mine))
    saw(theirs, "birch", alder=log(mine))
    log(mine, events=3)
    return mine, theirs


def test_a_log_that_holds_all_that_others_witnessed(two: tuple[Path, Path]) -> None:
    found = against(two[0], [two[1]])
    assert (found.report.entries, dict(found.heads), found.last) == (12, {"birch": 2}, 9)
    said = CliRunner().invoke(app, ["verify", str(two[0]), "--against", str(two[1])])
    assert said.exit_code == 0
    assert "its first 9 lines cannot have been changed since; 3 came after" in said.stdout


def rewritten(place: Path, keep: int) -> None:
    """The owner writes its log anew after some lines, of equal length, with the right key."""
    lines = place.read_bytes().splitlines(keepends=True)
    place.write_bytes(b"".join(lines[:keep]))
    place.with_name(place.name + ".head").unlink()
    import fivefold.records.audit_entries as form

    last = form.entry_of(lines[keep - 1], place.name, keep)
    head = form.new_head(last, sum(map(len, lines[:keep])), KEYS["alder"])
    place.with_name(place.name + ".head").write_bytes(form.line_of(head))
    log(place, events=len(lines) - keep)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: rewritten(p, 6), "line 9 of alder.jsonl is not the entry that birch witnessed .*is one of 6 to 9"),
        (lambda p: rewritten(p, 3), "line 5 of alder.jsonl is not .*is one of 1 to 5"),
        (lambda p: anew(p, events=11), "line 5 of alder.jsonl is not .*is one of 1 to 5"),
        (lambda p: anew(p, events=2), "ends with line 3, and birch witnessed line 5 of it .*is one of 1 to 4"),
        (lambda p: anew(p, key=bytes(range(32))), "under a key that never signed alder.jsonl"),
    ],
)
def test_a_rewritten_log_is_named_line_by_line(two: tuple[Path, Path], change: Callable[[Path], None], says: str) -> None:
    change(two[0])
    assert CliRunner().invoke(app, ["verify", str(two[0])]).exit_code == 0  # by itself it is whole
    with pytest.raises(AuditBroken, match=says):
        against(two[0], [two[1]])


def test_a_restored_back_up_is_named_by_its_missing_line(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "alder.jsonl", tmp_path / "birch.jsonl"
    saw(theirs, "birch", alder=log(mine))
    (tmp_path / "old").mkdir()
    for suffix in ("", ".head"):
        shutil.copy(f"{mine}{suffix}", tmp_path / "old")
    saw(theirs, "birch", alder=log(mine))
    for suffix in ("", ".head"):
        shutil.copy(tmp_path / "old" / f"alder.jsonl{suffix}", f"{mine}{suffix}")
    with pytest.raises(AuditBroken, match=r"ends with line 5, and birch witnessed line 9 .*is line 6"):
        against(mine, [theirs])
    log(mine, events=9)  # and goes on, as if nothing had been
    with pytest.raises(AuditBroken, match=r"line 9 of alder.jsonl is not the entry .*is one of 6 to 9"):
        against(mine, [theirs])


def test_two_stories_show_without_the_owners_log(tmp_path: Path) -> None:
    one = log(tmp_path / "c1", "coordinator")
    two = log(tmp_path / "c2", "coordinator")
    assert one.seq == two.seq
    saw(tmp_path / "alder", "alder", coordinator=one, birch=log(tmp_path / "b", "birch"))
    saw(tmp_path / "birch", "birch", coordinator=two, alder=read_head(tmp_path / "alder") or one)
    with pytest.raises(AuditBroken, match=r"coordinator signed two different entries 5 .*shown to birch .*another to alder"):
        against(tmp_path / "alder", [tmp_path / "birch"])


def test_two_logs_of_one_run(tmp_path: Path) -> None:
    saw(tmp_path / "alder", "alder", coordinator=log(tmp_path / "c1", "coordinator"))
    other = log(tmp_path / "c2", "coordinator", 7, key=bytes(range(32)))
    saw(tmp_path / "birch", "birch", coordinator=other, alder=read_head(tmp_path / "alder") or other)
    with pytest.raises(AuditBroken, match="the coordinator of run r1 had two logs"):
        against(tmp_path / "alder", [tmp_path / "birch"])


def test_a_head_that_its_owner_never_signed_is_no_evidence(tmp_path: Path) -> None:
    head = log(tmp_path / "a")
    saw(tmp_path / "b", "birch", alder=replace(head, hash="0" * 64))
    with pytest.raises(AuditBroken, match="b, line 2: alder never signed the head that birch says it was shown"):
        against(tmp_path / "a", [tmp_path / "b"])


def test_witnesses_that_saw_nothing_prove_nothing(tmp_path: Path) -> None:
    log(tmp_path / "a")
    log(tmp_path / "b", "birch")
    with pytest.raises(AuditBroken, match="none of the witnesses holds a head of alder"):
        against(tmp_path / "a", [tmp_path / "b"])


def test_a_kept_copy_witnesses_all_up_to_its_own_end(tmp_path: Path) -> None:
    """What was written after the last round, when nobody was shown a head any more."""
    mine, kept = tmp_path / "alder.jsonl", tmp_path / "kept.jsonl"
    log(mine, events=7)
    for suffix in ("", ".head"):
        shutil.copy(f"{mine}{suffix}", f"{kept}{suffix}")
    log(mine)
    assert (dict(against(mine, [kept]).heads), against(mine, [kept]).last) == ({"a kept copy": 1}, 8)
    with pytest.raises(AuditBroken, match="none of the witnesses holds a head of alder"):
        against(mine, [mine])  # nobody witnesses for itself
    rewritten(mine, 7)
    with pytest.raises(AuditBroken, match=r"line 8 of alder.jsonl is not the entry that a kept copy witnessed"):
        against(mine, [kept])
    with pytest.raises(RunError, match="no research package"):
        against(mine, [tmp_path])


def test_a_lodged_head(tmp_path: Path) -> None:
    mine, head, kept = tmp_path / "alder.jsonl", tmp_path / "head", tmp_path / "kept"
    log(mine)
    CliRunner().invoke(app, ["head", str(mine), "--out", str(head)])
    keys.write_key(tmp_path / "notary.key", bytes([9]) * 32)
    said = CliRunner().invoke(
        app, ["lodge", str(head), "--key", str(tmp_path / "notary.key"), "--name", "Notary Meier", "--out", str(kept)]
    )
    assert "entry 5 of alder, seen by Notary Meier" in said.stdout
    assert read_lodged(kept).key == keys.public_of(bytes([9]) * 32).hex()
    log(mine)
    assert dict(against(mine, [kept]).heads) == {"Notary Meier": 1}
    anew(mine, events=9)
    with pytest.raises(AuditBroken, match="is not the entry that Notary Meier witnessed"):
        against(mine, [kept])
    whole = kept.read_bytes()
    for n in range(0, len(whole), 11):
        kept.write_bytes(whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :])
        with pytest.raises(AuditBroken):
            read_lodged(kept)
    with pytest.raises(AuditBroken, match=r"was altered|not signed"):
        lodge(replace(read_head(head, "") or log(mine), seq=3), kept, bytes([9]) * 32, "Notary Meier")


# ---- during a run -----------------------------------------------------------------------------------------------------
def advert(head: Head) -> Advert:
    return Advert(b"", b"", b"", b"", False, packed(head))


def test_a_site_sees_the_coordinators_log_go_back(tmp_path: Path) -> None:
    roster = Roster(("alder", "birch"), (keys.public_of(KEYS["alder"]), keys.public_of(KEYS["birch"])))
    it = Witness("alder", roster)
    early, late = log(tmp_path / "c", "coordinator"), log(tmp_path / "c", "coordinator")
    birch = log(tmp_path / "b", "birch")
    assert it.shown({"birch": advert(birch)}, packed(late))["sites"] == {"birch": told(birch)}
    for head in (early, log(tmp_path / "c2", "coordinator", 8), log(tmp_path / "c3", "coordinator", 20, key=bytes(range(32)))):
        with pytest.raises(ProtocolViolation) as caught:
            it.shown({}, packed(head))
        assert caught.value.rule == "log_rewritten"
    with pytest.raises(ProtocolViolation, match="birch is not signed by its owner"):
        it.shown({"birch": advert(log(tmp_path / "b2", "birch", key=bytes(range(32))))}, packed(late))
    again = it.shown({"birch": advert(log(tmp_path / "b3", "birch"))}, packed(late))
    assert again["contradicts"] == ["birch"]
