"""The budget of a data asset: what is charged, what is refused, and what a crash, a restored copy or an altered byte leaves."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import BudgetSpent, FivefoldError, LedgerBroken, PolicyRefuses, RunError, StorageFull
from fivefold.governance.policy import Policy
from fivefold.privacy.dp.events import ORDERS, Event, allowance, composed, curve, epsilon_of
from fivefold.records.audit import AuditLog, entries, verify
from fivefold.site import budget_book as books
from fivefold.site.budget import (
    Release,
    admits,
    by_study,
    curve_of,
    filter_order,
    ledger_of,
    mark_exact,
    reserve,
    spent,
)
from tests.site.budget_worker import EVENT, policy, release

KEY = b"\1" * 32
SITE = policy(1.0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog(tmp_path / "state" / "audit.jsonl", KEY, "a") as opened:
        yield opened


def charge(log: AuditLog, number: int, site: Policy = SITE, event: Event = EVENT) -> bool:
    return reserve(log.path.parent, site, release(number), (event,), log).charged


def ledger(log: AuditLog, site: Policy = SITE) -> Path:
    return ledger_of(log.path.parent, site)


def fresh(path: Path) -> books.Book:
    """As a new process reads it."""
    books._KNOWN.clear()
    books._WITNESSED.clear()
    return books.load(path, "registry")


# ---- the cap --------------------------------------------------------------------------------------------------------
def test_releases_are_charged_until_the_cap_and_not_one_beyond(log: AuditLog) -> None:
    number = 0
    with suppress(BudgetSpent):
        while charge(log, number):
            number += 1
    book = fresh(ledger(log))
    assert len(book.entries) == number > 10
    assert epsilon_of(curve_of(book.entries), 1e-6) <= 1.0
    assert epsilon_of(composed([curve_of(book.entries), curve(EVENT)]), 1e-6) > 1.0
    assert charge(log, number, event=Event("discrete_gaussian", 1e4)), "a smaller release still fits"


def test_a_refusal_names_the_spender_to_the_sites_own_staff_and_to_nobody_else(log: AuditLog) -> None:
    charge(log, 0, event=Event("discrete_gaussian", 6.0))
    with pytest.raises(BudgetSpent) as caught:
        charge(log, 1, event=Event("discrete_gaussian", 6.0))
    assert "“Study 0”" in caught.value.message
    assert "rule budget" in caught.value.message
    assert caught.value.public() == {"code": "BudgetSpent", "rule": "budget", "variable": ""}
    last = list(entries(log.path))[-1]
    assert last.event == "budget refused"
    assert "“Study 0”" in str(last.facts["sentence"])


def test_a_retry_is_charged_once_and_every_change_anew(log: AuditLog) -> None:
    assert charge(log, 0)
    assert not charge(log, 0)
    state, one = log.path.parent, release(0)
    assert not reserve(state, SITE, replace(one, title="Other words", roster=("c", "b", "a")), (EVENT,), log).charged
    changes: list[dict[str, Any]] = [
        {"study": "e" * 64}, {"run": "run2"}, {"round": 9}, {"question": "f" * 64}, {"roster": ("a", "b")}, {"scale": 41.0},
        {"data": "a" * 64},
    ]  # fmt: skip
    for change in changes:
        assert reserve(state, SITE, replace(one, **change), (EVENT,), log).charged
    assert len(fresh(ledger(log)).entries) == 1 + len(changes)


def test_a_retry_is_answered_also_when_the_budget_is_spent(log: AuditLog) -> None:
    charge(log, 0, event=Event("discrete_gaussian", 6.0))
    with pytest.raises(BudgetSpent):
        charge(log, 1, event=Event("discrete_gaussian", 6.0))
    assert not charge(log, 0, event=Event("discrete_gaussian", 6.0))


def test_all_studies_on_the_asset_share_the_cap_and_without_one_nothing_is_refused(log: AuditLog) -> None:
    for number in range(3):
        reserve(
            log.path.parent, SITE, replace(release(number), study=f"{number:064x}"), (Event("discrete_gaussian", 12.0),), log
        )
    found = by_study(fresh(ledger(log)), 1e-6)
    assert [s.answers for s in found] == [1, 1, 1]
    assert spent(SITE, fresh(ledger(log)))[0] < sum(s.epsilon for s in found)
    with pytest.raises(BudgetSpent):
        charge(log, 4, event=Event("discrete_gaussian", 5.5))
    assert charge(log, 4, site=policy(None), event=Event("discrete_gaussian", 0.5))
    with pytest.raises(BudgetSpent):
        charge(log, 5, event=Event("discrete_gaussian", 1e4))  # what was spent without a cap counts under one


def test_a_study_has_a_cap_of_its_own_over_all_its_runs(log: AuditLog) -> None:
    state, free = log.path.parent, policy(None)
    event, cap = Event("discrete_gaussian", 6.0), (1.0, 1e-6)
    assert reserve(state, free, release(0), (event,), log, study_cap=cap).charged
    again = replace(release(0), run="run2")
    with pytest.raises(BudgetSpent) as caught:
        reserve(state, free, again, (event,), log, study_cap=cap)
    assert caught.value.rule == "study_epsilon"
    assert not reserve(state, free, release(0), (event,), log, study_cap=cap).charged
    assert reserve(state, free, replace(again, study="e" * 64), (event,), log, study_cap=cap).charged
    assert reserve(state, free, again, (event,), log).charged


def test_a_cap_that_no_release_can_keep_admits_none(log: AuditLog) -> None:
    with pytest.raises(BudgetSpent):
        charge(log, 0, site=policy(1e-5), event=Event("discrete_gaussian", 1e6))


@settings(max_examples=150, deadline=None)
@given(
    epsilon=st.floats(0.02, 20),
    delta=st.floats(1e-10, 0.1),
    events=st.lists(st.tuples(st.floats(0.3, 300), st.integers(1, 50), st.floats(0, 0.01)), max_size=8),
)
def test_the_filter_is_some_order_under_its_allowance_and_never_above_the_cap(
    epsilon: float, delta: float, events: list[tuple[float, int, float]]
) -> None:
    total = composed(curve(Event("discrete_gaussian", *values)) for values in events)
    room = allowance(epsilon, delta)
    near = np.abs(total - room) <= 1e-9 * np.abs(room)
    if not np.any(near):
        assert admits(epsilon, delta, total) == bool(np.any(total <= room))
    if admits(epsilon, delta, total):
        assert epsilon_of(total, delta) <= epsilon * (1 + 1e-12)
    assert ORDERS[filter_order(epsilon, delta)] > 1


# ---- exact and noisy ------------------------------------------------------------------------------------------------
def test_an_exact_release_marks_the_asset_once_a_study_and_costs_no_epsilon(log: AuditLog) -> None:
    state = log.path.parent
    assert mark_exact(state, SITE, release(0), log).charged
    assert not mark_exact(state, SITE, release(1), log).charged
    assert mark_exact(state, SITE, replace(release(0), study="e" * 64), log).charged
    assert charge(log, 5)
    first, second = by_study(fresh(ledger(log)), 1e-6)
    assert (first.exact, first.answers, second.exact, second.answers) == (True, 1, True, 0)
    assert 0 < spent(SITE, fresh(ledger(log)))[0] < 1


@pytest.mark.parametrize("exact_first", [True, False])
def test_a_policy_may_forbid_mixing(log: AuditLog, exact_first: bool) -> None:
    apart = policy(1.0, mix_exact_and_noisy="refused")
    state = log.path.parent
    first, second = (Event("exact"), EVENT) if exact_first else (EVENT, Event("exact"))
    assert reserve(state, apart, release(0), (first,), log).charged
    with pytest.raises(PolicyRefuses) as caught:
        reserve(state, apart, release(1), (second,), log)
    assert caught.value.rule == "mix_exact_and_noisy"
    assert len(fresh(ledger(log)).entries) == 1


# ---- copies, alterations --------------------------------------------------------------------------------------------
def test_a_restored_back_up_is_noticed(log: AuditLog, tmp_path: Path) -> None:
    charge(log, 0)
    shutil.copy(ledger(log), tmp_path / "old")
    charge(log, 1)
    shutil.copy(tmp_path / "old", ledger(log))
    for number in (1, 2):
        with pytest.raises(
            LedgerBroken, match="put back to an older copy: it holds 1 charges, and the audit log names charge 2"
        ):
            charge(log, number)


def test_a_ledger_that_was_removed_is_noticed(log: AuditLog) -> None:
    charge(log, 0)
    ledger(log).unlink()
    with pytest.raises(LedgerBroken, match="older copy: it holds 0 charges"):
        charge(log, 0)


def test_a_ledger_that_was_written_anew_is_noticed(log: AuditLog, tmp_path: Path) -> None:
    charge(log, 0)
    with AuditLog(tmp_path / "other" / "audit.jsonl", KEY, "a") as other:
        charge(other, 0)
        charge(other, 1)
        shutil.copy(ledger(other), ledger(log))
    with pytest.raises(LedgerBroken, match="not the one that the audit log names"):
        charge(log, 1)


def test_another_head_of_the_same_log_is_found_far_back(log: AuditLog) -> None:
    charge(log, 0)
    for number in range(1500):
        log.write("noise", text="x" * 60, number=number)
    assert log.path.stat().st_size > 4 * books.BLOCK
    assert books.last_witnessed(log.path, "registry") == (1, fresh(ledger(log)).head)
    assert books.last_witnessed(log.path, "another") is None
    charge(log, 1)
    assert books.last_witnessed(log.path, "registry") == (2, fresh(ledger(log)).head)
    with log.path.open("ab") as file:
        file.write(b'{"asset":"registry","event":"budget"')  # another process is in the middle of a line
    assert books.last_witnessed(log.path, "registry") == (2, fresh(ledger(log)).head)


def test_every_changed_byte_is_found(log: AuditLog) -> None:
    charge(log, 0)
    charge(log, 1)
    whole = ledger(log).read_bytes()
    for at in range(0, len(whole), 7):
        ledger(log).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        books._KNOWN.clear()
        with pytest.raises(LedgerBroken):
            charge(log, 2)
    ledger(log).write_bytes(whole)
    assert charge(log, 2)


def test_two_nodes_share_one_ledger(tmp_path: Path) -> None:
    shared = {"budget": {"epsilon": 1.0, "delta": 1e-6, "ledger": "../registry.ledger"}}
    logs = [AuditLog(tmp_path / name / "state" / "audit.jsonl", KEY, name) for name in ("a", "b")]
    sites = [policy(None, site=log.owner, **shared) for log in logs]
    with logs[0], logs[1]:
        assert charge(logs[0], 0, site=sites[0], event=Event("discrete_gaussian", 6.0))
        with pytest.raises(BudgetSpent):
            charge(logs[1], 1, site=sites[1], event=Event("discrete_gaussian", 6.0))
        with pytest.raises(LedgerBroken, match="is the ledger of the asset registry, not of cohort"):
            charge(logs[1], 2, site=policy(None, asset="cohort", **shared))
    assert (tmp_path / "registry.ledger").exists()


# ---- crashes --------------------------------------------------------------------------------------------------------
class Killed(BaseException):
    """What a process feels of `kill -9`: nothing runs after it."""


def fails_at(monkeypatch: pytest.MonkeyPatch, fatal: int, failure: BaseException) -> Iterator[int]:
    """From now on call number `fatal` (from 0) of those that change the disk fails. What comes back counts them."""
    calls = count()

    def faulty(real: Any) -> Any:
        def call(*args: Any) -> Any:
            if next(calls) == fatal:
                raise failure
            return real(*args)

        return call

    for name in ("fsync", "write", "pwrite", "replace"):
        monkeypatch.setattr(os, name, faulty(getattr(os, name)))
    return calls


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "input/output error"), OSError(errno.ENOSPC, "full"), Killed()])
@pytest.mark.parametrize("first", [True, False])
def test_a_failure_at_each_write_loses_nothing_and_releases_nothing(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, failure: BaseException, first: bool
) -> None:
    """Every write, fsync and rename of a reservation fails in turn; afterwards the books hold all that was answered."""
    returned = [] if first else [0]
    for number in returned:
        charge(log, number)
    for fatal in range(40):
        calls = fails_at(monkeypatch, fatal, failure)
        books._KNOWN.clear()
        try:
            with AuditLog(log.path, KEY, "a") as mine:
                charge(mine, 100 + fatal)
                returned.append(100 + fatal)
        except (RunError, StorageFull, Killed):
            pass
        finally:
            monkeypatch.undo()
        book = fresh(ledger(log))
        assert {e.round for e in book.entries} >= set(returned)
        assert len({e.round for e in book.entries}) == len(book.entries)
        with AuditLog(log.path, KEY, "a") as mine:
            books.compare(book, books.last_witnessed(mine.path, "registry"))
        if next(calls) <= fatal:
            break
    assert len(returned) > len([] if first else [0])
    assert fatal >= 5
    verify(log.path)


def test_a_torn_record_is_cut_off_and_the_rest_goes_on(log: AuditLog) -> None:
    charge(log, 0)
    size = ledger(log).stat().st_size
    charge(log, 1)
    whole, names = ledger(log).read_bytes(), log.path.read_bytes()
    heads = log.path.with_name("audit.jsonl.head").read_bytes()
    for cut in range(size, len(whole), 11):
        ledger(log).write_bytes(whole[:cut])
        with pytest.raises(LedgerBroken):
            charge(log, 2)  # the audit log has seen the charge: its record must be there
    kept = names[: names.rindex(b"\n", 0, -1) + 1]
    assert kept != names
    assert heads
    for cut in range(size, len(whole), 11):
        state = log.path.parent.parent / f"cut{cut}"
        with AuditLog(state / "audit.jsonl", KEY, "a") as other:
            (state / "budget").mkdir()
            ledger(other).write_bytes(whole[:cut])
            assert charge(other, 1)
            assert [e.round for e in fresh(ledger(other)).entries] == [0, 1]


def test_a_charge_that_the_audit_log_missed_is_written_there_before_its_retry_is_answered(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    charge(log, 0)

    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    monkeypatch.setattr(books, "_witness", die)
    with pytest.raises(Killed):
        charge(log, 1)
    monkeypatch.undo()
    assert books.last_witnessed(log.path, "registry") == (1, fresh(ledger(log)).heads[1])
    assert not charge(log, 1)
    assert books.last_witnessed(log.path, "registry") == (2, fresh(ledger(log)).head)


def test_the_audit_log_holds_each_head(log: AuditLog) -> None:
    for number in range(3):
        charge(log, number)
    heads = [e.facts["head"] for e in entries(log.path) if e.event == books.EVENT]
    assert tuple(heads) == fresh(ledger(log)).heads[1:]


# ---- the policy -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "budget",
    [{"epsilon": 0, "delta": 1e-6}, {"epsilon": 1.0, "delta": 1.0}, {"epsilon": 1.0}, {"epsilon": math.inf, "delta": 0.1}],
)
def test_a_budget_that_makes_no_sense_is_no_policy(budget: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        policy(None, budget=budget)


def test_a_release_without_an_event_is_a_fault(log: AuditLog) -> None:
    with pytest.raises(ValueError):
        reserve(log.path.parent, SITE, release(0), (), log)
    assert issubclass(BudgetSpent, FivefoldError)
    assert Release("s", "r", 1, "q", ("a", "b"), 1.0).key == Release("s", "r", 1, "q", ("b", "a"), 1.0).key
