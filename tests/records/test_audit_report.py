"""The log as a page and as JSON lines: verified first, each entry in the chapter that an auditor looks into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fivefold.cli.audit import app
from fivefold.errors import AuditBroken, FivefoldError, SignatureWrong
from fivefold.records.audit import AuditLog, entries
from fivefold.records.audit_report import CHAPTERS, chapter
from tests.journeys.hostile import Consortium, Hostile, changed, prepared, them

__all__ = ["prepared", "them"]

WRITTEN = {
    "ask": ("training", {"round": 1}),
    "run begun": ("training", {"run": "r"}),
    "refused": ("refusals", {"code": "PolicyRefuses", "rule": "methods", "variable": ""}),
    "refusal": ("authentication", {"code": "SignatureWrong", "rule": "signature"}),
    "foreign message refused": ("authentication", {"code": "MessageMalformed"}),
    "run stopped": ("errors", {"code": "StorageFull"}),
    "output release": ("outputs", {"request": 1}),
    "output decision": ("refusals", {"refused": "own_study"}),
    "approval": ("agreements", {"title": "<script>alert(1)</script> | *x*"}),
    "heads": ("log", {"sites": {}, "salt": "a salt of this log"}),
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    with AuditLog(tmp_path / "audit.jsonl", bytes([7]) * 32, "alder") as it:
        for event, (_, facts) in WRITTEN.items():
            it.write(event, **facts)
    return tmp_path / "audit.jsonl"


def test_every_entry_has_its_chapter(log: Path) -> None:
    assert {e.event: chapter(e) for e in entries(log)} == {"opened": "log"} | {k: v[0] for k, v in WRITTEN.items()}


def test_json_lines(log: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["export", str(log)])
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [(one["seq"], one["event"], one["hash"]) for one in lines] == [(e.seq, e.event, e.hash) for e in entries(log)]
    CliRunner().invoke(app, ["export", str(log), "--out", str(tmp_path / "out.jsonl")])
    assert (tmp_path / "out.jsonl").read_text("utf-8") == said.stdout


@pytest.mark.parametrize("name", ["page.html", "page.md"])
def test_a_page_takes_hostile_text_as_text(log: Path, tmp_path: Path, name: str) -> None:
    assert CliRunner().invoke(app, ["report", str(log), "--out", str(tmp_path / name)]).exit_code == 0
    text = (tmp_path / name).read_text("utf-8")
    assert "<script>" not in text.replace("\\<script\\>", "")
    for title in CHAPTERS:
        assert title.capitalize() in text
    assert "Authentication (2)" in text
    assert "not with what other parties witnessed" in text
    assert "a salt of this log" not in text  # a salt tells nobody anything


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_broken_log_gives_no_page(log: Path, tmp_path: Path, command: str) -> None:
    log.write_bytes(log.read_bytes().replace(b"PolicyRefuses", b"PolicyPermits"))
    said = CliRunner().invoke(app, [command, str(log), "--out", str(tmp_path / "page.html")])
    assert isinstance(said.exception, AuditBroken)
    assert not (tmp_path / "page.html").exists()


def test_a_forged_signature_is_an_attempt_at_whoever_meets_it(them: Consortium) -> None:
    """A forged reply at the coordinator, and a forged advert at the sites: both logs have it as an attempt."""
    from dataclasses import replace

    from fivefold.protocol import messages as m

    def forged(data: bytes) -> bytes:
        return replace(m.Envelope.decode(data), signature=bytes(64)).encode()

    def alter(site: str, asked: m.Envelope) -> m.Envelope:
        if asked.kind != "share":
            return asked
        adverts = m.Share.decode(asked.body).adverts
        return changed(asked, m.Share, adverts=(*adverts[:-1], forged(adverts[-1])))

    class Forging(Hostile):
        def send(self, name: str, data: bytes) -> bytes:
            reply = super().send(name, data)
            return m.reply(forged(m.envelopes_of(reply)[0])) if name == "birch" else reply

    with pytest.raises(FivefoldError):
        them.run(Forging(them.engine, alter))
    for place in (them.out / "run0" / "audit.jsonl", them.out / "sites" / "alder" / "state" / "audit.jsonl"):
        found = [e for e in entries(place) if chapter(e) == "authentication"]
        assert {e.facts["code"] for e in found} == {SignatureWrong.__name__}, place
