"""A run whose parties witness each other's logs: whoever rewrites, cuts or doubles its own afterwards is found."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.errors import AuditBroken, FivefoldError
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope
from fivefold.records import audit_entries as form
from fivefold.records.audit import AuditLog, entries, verify
from fivefold.records.witness import HEADS, against, packed
from tests.journeys.hostile import SITES, Consortium, Hostile, changed, prepared, them

__all__ = ["prepared", "them"]


def logs(it: Consortium) -> dict[str, Path]:
    found = {site: it.out / "sites" / site / "state" / "audit.jsonl" for site in SITES}
    return found | {"coordinator": it.out / "run0" / "audit.jsonl"}


@pytest.fixture
def ran(them: Consortium) -> dict[str, Path]:
    them.run(them.engine)
    return logs(them)


def rewritten(log: Path, owner: str, private: bytes, line: int, end: int) -> None:
    """The owner writes its log anew from a line on, with its own key and the events that it likes, up to the line `end`."""
    lines = log.read_bytes().splitlines(keepends=True)[: line - 1]
    log.write_bytes(b"".join(lines))
    head = form.new_head(form.entry_of(lines[-1], log.name, line - 1), sum(map(len, lines)), private)
    log.with_name(log.name + ".head").write_bytes(form.line_of(head))
    with AuditLog(log, private, owner) as it:
        for _ in range(line, end + 1):
            it.write("nothing happened")


def test_everybody_holds_everybodys_heads(ran: dict[str, Path], tmp_path: Path) -> None:
    for owner, log in ran.items():
        found = against(log, [other for name, other in ran.items() if name != owner])
        assert set(found.heads) == set(ran) - {owner}
        rounds = {e.facts["round"] for e in entries(ran["alder"]) if e.event == "ask"}
        assert min(found.heads.values()) >= len(rounds)
        assert found.report.entries - found.last <= 3, owner  # closing entries alone came after the last head
        # one witness is enough to find it, whoever it is
        kept = tmp_path / owner
        shutil.copytree(log.parent, kept)
        place = log.parent.parent / "keys" / "node.key" if owner in SITES else log.parent / "coordinator.key"
        private, end = keys.read_key(place), found.report.entries
        witness = next(other for name, other in ran.items() if name != owner)
        rewritten(log, owner, private, end // 2, end)
        assert verify(log).entries == end  # by itself, whole
        with pytest.raises(AuditBroken, match=rf"is not the entry that .* witnessed .*rewritten is .*\b{end // 2}\b|is one of"):
            against(log, [witness])
        for suffix in ("", ".head"):
            shutil.copy(kept / f"audit.jsonl{suffix}", f"{log}{suffix}")
        against(log, [witness])


def test_a_coordinator_that_shows_one_site_another_log(them: Consortium, tmp_path: Path) -> None:
    """It can open no sum with that site, whose masks bind the head; and the logs of two sites show it without its own."""
    fork = AuditLog(tmp_path / "fork.jsonl", keys.new_key(), "coordinator")

    def alter(site: str, asked: Envelope) -> Envelope:
        if site != "birch" or asked.kind not in ("share", "unmask"):
            return asked
        fork.write("another story")
        return changed(asked, m.Share if asked.kind == "share" else m.Unmask, head=packed(fork.head))

    with suppress(FivefoldError):
        them.run(Hostile(them.engine, alter))
    fork.close()
    sums = [e.facts["sites"] for e in entries(logs(them)["coordinator"]) if e.event == "aggregate"]
    assert not any("birch" in sites for sites in sums)
    assert any(e.event == HEADS for e in entries(logs(them)["birch"]))
    with pytest.raises(AuditBroken, match=r"the coordinator of run \w+ had two logs"):
        against(logs(them)["alder"], [logs(them)["birch"]])


def test_a_coordinator_restored_from_a_back_up_is_refused(them: Consortium) -> None:
    """Its log goes back under a run that goes on: no site shares with it any more."""
    first: dict[str, bytes] = {}

    def alter(site: str, asked: Envelope) -> Envelope:
        if asked.kind == "share":
            first.setdefault(site, m.Share.decode(asked.body).head)
        if asked.kind == "unmask" and asked.place.round == 2:
            return changed(asked, m.Unmask, head=first[site])
        return asked

    hostile = them.attack(alter)
    them.holds(hostile, "unmask", "ProtocolViolation", "log_rewritten")
