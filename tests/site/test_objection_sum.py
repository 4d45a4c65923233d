"""Objections to a release travel as a secure sum: how many is known, who is not, and nobody can bring it about."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys as ed25519
from fivefold.disclosure.tables import Count
from fivefold.errors import ProtocolViolation, StatementInvalid, TooFewSites
from fivefold.governance import approvals
from fivefold.governance.objection_sum import Asking, masked, offered, total
from fivefold.governance.statements import read_statement
from fivefold.privacy.secagg.keys import new_pair
from fivefold.records.audit import entries
from fivefold.replay.roster import roster_of
from fivefold.site.folder import SiteFolder
from fivefold.site.objection_sum import asking_of, objection, objection_key
from fivefold.site.preparation import prepare
from fivefold.site.release_ledger import Proposed, record

SITES = ("basel", "bern", "genf")


def proposed(persons: int) -> Proposed:
    return Proposed({"means": (Count.of({}, persons),)}, "who, by which words")


@pytest.fixture
def signed(consortium: Any, now: datetime) -> Any:
    made = consortium.signed()
    approvals.approve(consortium.site.path, made.study, made.digest, consortium.custodian, now=now)
    prepare(consortium.site, made.study, made.digest, when=now)
    return made


class Round:
    """One asking of the three sites: basel has the rows; bern and genf never approved, and so object."""

    def __init__(self, folder: Path, signed: Any, proposal: Proposed, nonce: str, now: datetime) -> None:
        self.sites = {name: SiteFolder(folder / name) for name in SITES}
        self.signed, self.proposal, self.nonce, self.now = signed, proposal, nonce, now
        self.asking, self.roster = asking_of(signed, proposal, nonce), roster_of(signed.study)
        self.keys = {name: objection_key(site, self.asking) for name, site in self.sites.items()}

    def word(self, name: str) -> bytes:
        return objection(self.sites[name], self.signed, self.proposal, self.nonce, self.keys, now=self.now)

    def total(self) -> int:
        return total(self.asking, self.keys, {name: self.word(name) for name in SITES}, self.roster)


def value(word: bytes) -> int:
    return int(read_statement(word, "a word").facts["masked"])


def test_the_sum_is_right_and_no_word_shows_what_it_says(tmp_path: Path, consortium: Any, signed: Any, now: datetime) -> None:
    for persons, nonce, objecting in ((150, "a1", 2), (43, "b2", 3)):
        asked = Round(tmp_path, signed, proposed(persons), nonce, now)
        assert asked.total() == objecting
    # the same word under the masks of another asking is another number, of the whole ring
    values = [value(Round(tmp_path, signed, proposed(150), f"{i:02x}", now).word("basel")) for i in range(8)]
    assert len(set(values)) == 8
    assert max(values) - min(values) > 1 << 24
    log = entries(consortium.site.state / "audit.jsonl")
    assert [e.facts["objects"] for e in log if e.event == "release verdict"] == [False, True]  # judged once each
    refused = [e for e in entries(tmp_path / "bern" / "state" / "audit.jsonl") if e.event == "release verdict refused"]
    assert {e.facts["rule"] for e in refused} == {"no_approval"}


def test_all_sites_take_part_or_none(tmp_path: Path, signed: Any, now: datetime) -> None:
    asked = Round(tmp_path, signed, proposed(150), "a1", now)
    words = {name: asked.word(name) for name in SITES}
    for left_out in SITES:
        with pytest.raises(ProtocolViolation, match="every site"):
            total(asked.asking, asked.keys, {n: w for n, w in words.items() if n != left_out}, asked.roster)
    asked.keys.pop("genf")
    with pytest.raises(ProtocolViolation, match="every site"):  # the site itself says no: beside the whole it would name genf
        asked.word("basel")
    two = replace(asked.roster, names=SITES[:2], keys=asked.roster.keys[:2])
    with pytest.raises(TooFewSites):
        total(asked.asking, asked.keys, words, two)


def test_nobody_speaks_in_a_sites_place(tmp_path: Path, consortium: Any, signed: Any, now: datetime) -> None:
    asked = Round(tmp_path, signed, proposed(150), "a1", now)
    whole, stranger, pair = dict(asked.keys), ed25519.new_key(), new_pair()
    other = Round(tmp_path, signed, proposed(150), "b2", now)
    own = json.loads(whole["bern"])
    own["facts"]["public"] = pair.public.hex()
    node = consortium.site.node_key()
    for site, raw, error in (
        ("bern", offered(asked.asking, "bern", pair.private, stranger), ProtocolViolation),  # the coordinator's own key
        ("bern", json.dumps(own).encode(), StatementInvalid),  # altered
        ("bern", other.keys["bern"], ProtocolViolation),  # of another asking
        ("bern", whole["genf"], ProtocolViolation),  # another's
        ("basel", offered(asked.asking, "basel", pair.private, node), ProtocolViolation),  # not the one that this site derives
    ):
        asked.keys = whole | {site: raw}
        with pytest.raises(error):
            asked.word("basel")
    asked.keys = whole
    words = {name: asked.word(name) for name in SITES}
    forged = masked(asked.asking, "bern", False, pair.private, stranger, whole | {
        "bern": offered(asked.asking, "bern", pair.private, SiteFolder(tmp_path / "bern").node_key())
    }, asked.roster)  # fmt: skip
    for false in (forged, other.word("bern"), words["genf"]):
        with pytest.raises(ProtocolViolation):
            total(asked.asking, asked.keys, words | {"bern": false}, asked.roster)
    assert total(asked.asking, asked.keys, words, asked.roster) == 2
    with pytest.raises(ProtocolViolation):
        total(Asking(signed.digest, "0" * 64, "a1"), asked.keys, words, asked.roster)


def test_a_word_is_given_once_though_a_release_came_between(
    tmp_path: Path, consortium: Any, signed: Any, now: datetime
) -> None:
    """The same masks over two words would tell both apart by their difference."""
    asked = Round(tmp_path, signed, proposed(150), "a1", now)
    first = asked.word("basel")
    record(consortium.site, signed, proposed(148), release="r/1", now=now)  # now 150 differs from it by two
    assert asked.word("basel") == first
    assert Round(tmp_path, signed, proposed(150), "b2", now).total() == 3
