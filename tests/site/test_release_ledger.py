"""A site's own word on releases: few elsewhere, differencing across coordinators, and one bit that is not given too often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth import keys
from fivefold.disclosure.tables import KNOWN, MISSING, Count
from fivefold.errors import DifferencingRefused, NotApproved
from fivefold.governance import approvals
from fivefold.records.audit import entries
from fivefold.site.objections import objections, own_count
from fivefold.site.preparation import open_prepared, prepare
from fivefold.site.release_ledger import PER_DAY, Proposed, record, rows_of, verdict
from fivefold.study.definition import Analysis, Lead
from fivefold.study.digest import sign_study

POPULATION = "the digest of who and by which words"


def frozen(consortium: Any, now: Any, lead: bytes | None = None, **changes: Any) -> Any:
    """A study approved and frozen at the site; by another lead if a key is given."""
    signed = consortium.signed(**changes) if lead is None else None
    if signed is None:
        other = Lead("Grace Lead", "Institute", keys.public_of(lead or b"").hex())
        signed = sign_study(replace(consortium.study, lead=other, **changes), lead or b"")
    approvals.approve(consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now)
    prepare(consortium.site, signed.study, signed.digest, when=now)
    return signed


def oldest(consortium: Any, signed: Any, few: int) -> str:
    """A condition that leaves out the few oldest."""
    ages = np.sort(open_prepared(consortium.site, signed.study, signed.digest).table["age"])
    return f"age < {(ages[-few] + ages[-few - 1]) / 2:.6f}"


def proposed(**counts: Count) -> Proposed:
    return Proposed({"means": tuple(counts.values())}, POPULATION)


def test_own_counts_are_of_persons_in_the_cell(consortium: Any, now: Any) -> None:
    table = open_prepared(consortium.site, *frozen(consortium, now)[:2]).table
    men = own_count(table, Count.of({"sex": "male"}, 0))
    women = own_count(table, Count.of({"sex": "female"}, 0))
    assert men is not None
    assert women is not None
    assert men + women == own_count(table, Count.of({"sex": KNOWN}, 0)) == table.persons == 40
    assert own_count(table, Count.of({"sex": MISSING}, 0)) == 0
    below = own_count(table, Count.of({"age": (-np.inf, 50.0)}, 0))
    above = own_count(table, Count.of({"age": (50.0, np.inf)}, 0))
    assert (below or 0) + (above or 0) == 40
    assert own_count(table, Count.of({"region": "north"}, 0)) is None


def test_few_persons_elsewhere_and_dominance() -> None:
    counts = [Count.of({"sex": "m"}, n) for n in (20, 23, 24, 40)]
    assert objections(counts, [20, 20, 20, 20], 5, dominance=False) == {"threshold": 2}  # 3 and 4 others; nobody is nobody
    rounded = [Count.of({"sex": "m"}, 25, 5)]
    assert objections(rounded, [20], 5, dominance=False) == {}  # 23 to 27 in all: 3 to 7 others
    assert objections([Count.of({}, 100)], [46], 5, dominance=True) == {"dominance": 1}
    assert objections([Count.of({}, 100)], [44], 5, dominance=True) == {}
    assert objections([Count.of({}, 100)], [None], 5, dominance=True) == {}


def test_a_site_without_a_reason_does_not_object(consortium: Any, now: Any) -> None:
    signed = frozen(consortium, now)
    assert not verdict(consortium.site, signed, proposed(all=Count.of({}, 150)), now=now)
    assert verdict(consortium.site, signed, proposed(all=Count.of({}, 43)), now=now)  # three others
    last = [e for e in entries(consortium.site.state / "audit.jsonl") if e.event == "release verdict"]
    assert [e.facts["objects"] for e in last] == [False, True]
    assert last[-1].facts["reasons"] == ["threshold", "dominance"]  # 40 of 43, and site_totals are refused


def test_differencing_over_releases_of_two_coordinators(consortium: Any, now: Any) -> None:
    mine = frozen(consortium, now)
    theirs = frozen(consortium, now, lead=keys.new_key())
    assert mine.digest != theirs.digest
    first = proposed(all=Count.of({}, 150), none=Count.of({"sex": MISSING}, 0))
    second = proposed(men=Count.of({"sex": "male"}, 147))
    assert not verdict(consortium.site, theirs, second, now=now)
    record(consortium.site, mine, first, release="a/1", now=now)
    assert verdict(consortium.site, theirs, second, now=now)  # three women, by subtraction
    other = Proposed(second.counts, "another population")
    assert not verdict(consortium.site, theirs, other, now=now)  # whose rows here are the same, and who says other words


def test_a_cohort_that_differs_by_a_few_from_an_earlier_release(consortium: Any, now: Any) -> None:
    whole = frozen(consortium, now)
    record(consortium.site, whole, proposed(all=Count.of({}, 150)), release="a/1", now=now)
    for few, objects in ((3, True), (9, False)):
        part = Analysis("means", "statistics", variables=("age",), subgroup=oldest(consortium, whole, few))
        signed = frozen(consortium, now, lead=keys.new_key(), analyses=(part,))
        assert len(rows_of(consortium.site, signed.study, signed.digest, {"means": ()})["means"]) == 40 - few
        asked = Proposed({"means": (Count.of({"age": KNOWN}, 140 - few),)}, f"leaving out {few}")
        assert verdict(consortium.site, signed, asked, now=now) == (("differencing",) if objects else ())


def test_one_bit_not_too_often(consortium: Any, now: Any) -> None:
    signed = frozen(consortium, now)
    for i in range(PER_DAY):
        verdict(consortium.site, signed, proposed(all=Count.of({}, 150 + i)), now=now)
    with pytest.raises(DifferencingRefused):
        verdict(consortium.site, signed, proposed(all=Count.of({}, 1500)), now=now)
    assert not verdict(consortium.site, signed, proposed(all=Count.of({}, 150)), now=now)  # said before: nothing new
    assert not verdict(consortium.site, signed, proposed(all=Count.of({}, 1500)), now=now + timedelta(days=1, hours=1))


def test_a_withdrawn_study_gets_no_word(consortium: Any, now: Any) -> None:
    signed = frozen(consortium, now)
    approvals.withdraw(consortium.site.path, signed.digest, consortium.custodian, now=now)
    with pytest.raises(NotApproved):
        verdict(consortium.site, signed, proposed(all=Count.of({}, 150)), now=now)


def test_the_ledger_on_disk_tells_nothing(consortium: Any, now: Any) -> None:
    signed = frozen(consortium, now)
    record(consortium.site, signed, proposed(men=Count.of({"sex": "male"}, 147)), release="a/1", now=now)
    (path,) = Path(consortium.site.state / "releases").glob("*.journal")
    data = path.read_bytes()
    assert b"male" not in data
    assert b"P001" not in data
    who = rows_of(consortium.site, signed.study, signed.digest, {"means": ()})["means"]
    assert not any(person in data for person in who)
