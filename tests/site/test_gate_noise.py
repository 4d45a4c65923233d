"""The gate with differential privacy: clip, round, noise from the site's secret, and the charge before anything is masked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth.keys import new_key
from fivefold.errors import BudgetSpent, FivefoldError, OutOfBounds, PolicyRefuses, RunError, ValueNotFinite
from fivefold.privacy.dp.accounting import multiplier_for
from fivefold.privacy.dp.shares import deviation
from fivefold.privacy.fixed_point import unpack
from fivefold.protocol.questions import Field, Sum, site_step
from fivefold.records.audit import AuditLog
from fivefold.replay.cursor import Asked
from fivefold.site.budget import ledger_of
from fivefold.site.budget_book import load
from fivefold.site.gate import GATE, Departure, leave
from fivefold.study.definition import Analysis, DifferentialPrivacy, Privacy
from fivefold.study.dictionary import Dictionary
from fivefold.study.table import Table
from tests.plain_study import policy_of, sites_of, study_of

DICTIONARY = Dictionary("d", "1", {})
SECRET = bytes(range(32))
FIELDS = (Field("n", "persons", 1000.0, (), 1.0), Field("s", "real", 1e4, (3,), 10.0))


@site_step("toy.noisy")
def step(table: Any) -> Mapping[str, Any]:
    return {}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog(tmp_path / "audit.jsonl", new_key(), "a") as log:
        yield log


def departure(
    state: Path, log: AuditLog | None, *, unit: Any = "person", answer: Any = None, fields: tuple[Field, ...] = FIELDS,
    round: int = 1, z: float = 2.0, epsilon: float = 50.0, rules: Mapping[str, Any] | None = None, **more: Any,
) -> Departure:  # fmt: skip
    private = DifferentialPrivacy(unit, epsilon, 1e-6, z, 1)
    study = study_of(Analysis("x", "toy"), sites=sites_of("a", "b", "c", "d"), privacy=Privacy(differential_privacy=private))
    from fivefold.replay.cursor import setting_of

    asked = Asked(round, study.analyses[0], "toy", Sum(step, fields, {"round": round}), setting_of(study).sharing)
    given = {"n": np.asarray(30.0), "s": np.array([1.0, -2.0, 3.0])} if answer is None else answer
    it = Departure(
        study, "d" * 64, policy_of(**rules or {}), asked, Table("a", DICTIONARY, {}, np.arange(30)), given, state, None,
        run="r1", data="rows", secret=SECRET, log=log,
    )  # fmt: skip
    return replace(it, **more)


def left(it: Departure) -> dict[str, Any]:
    passed = leave(it, GATE)
    assert passed.vector is not None
    return unpack(passed.vector, it.fields, 4, 1)


def rule_of(kind: type[FivefoldError], it: Departure) -> str:
    with pytest.raises(kind) as caught:
        leave(it, GATE)
    return caught.value.rule


def test_answers_leave_with_noise_of_the_promised_size(tmp_path: Path, log: AuditLog) -> None:
    it = departure(tmp_path, log, epsilon=99.0, z=20.0)
    values = np.array([left(replace(it, run=f"r{i}"))["s"] for i in range(40)])
    noise = values - np.array([1.0, -2.0, 3.0])
    plan = it.fields[1].noise
    assert plan is not None
    # z·√2·Δ/√(4 sites - 1 drop-out): this site's share.
    expected = 20.0 * math.sqrt(2) * 10.0 / math.sqrt(3)
    assert deviation(plan, 1) == pytest.approx(expected)
    assert noise.std() == pytest.approx(expected, rel=0.2)


def test_an_update_from_another_version_has_fresh_noise_and_is_charged(tmp_path: Path, log: AuditLog) -> None:
    """In a buffer: the same round asked again for an update that was computed anew, from other weights."""
    first, again, anew = (leave(departure(tmp_path, log, version=v), GATE).vector for v in (2, 2, 3))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, anew)
    book = load(ledger_of(tmp_path, departure(tmp_path, log).policy))
    assert len(book.entries) == 2


def test_a_retry_gets_the_same_noise_and_is_charged_once(tmp_path: Path, log: AuditLog) -> None:
    it = departure(tmp_path, log)
    first, second = leave(it, GATE), leave(departure(tmp_path, log), GATE)
    assert np.array_equal(first.vector, second.vector)
    assert len(load(ledger_of(tmp_path, it.policy)).entries) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"run": "r2"},
        {"data": "other rows"},
        {"study_digest": "e" * 64},
        {"secret": bytes(32)},
        {"round": 2},
        {"z": 2.5},
        {"fields": (FIELDS[0], Field("s", "real", 1e4, (3,), 11.0))},
    ],
)
def test_any_change_gets_fresh_noise(tmp_path: Path, log: AuditLog, change: dict[str, Any]) -> None:
    a, b = left(departure(tmp_path, log)), left(departure(tmp_path, log, **change))
    noise = a["s"] - b["s"]
    assert np.all(noise != 0)
    # Not the old noise scaled, either.
    assert np.ptp((a["s"] - [1, -2, 3]) / (b["s"] - [1, -2, 3])) > 0.01


def test_two_fields_do_not_share_their_noise(tmp_path: Path, log: AuditLog) -> None:
    twins = (Field("a", "real", 10.0, (4,), 1.0), Field("b", "real", 10.0, (4,), 1.0))
    out = left(departure(tmp_path, log, fields=twins, answer={"a": np.zeros(4), "b": np.zeros(4)}))
    assert not np.any(out["a"] == out["b"])


def test_the_charge_is_on_disk_before_and_names_the_event(tmp_path: Path, log: AuditLog) -> None:
    it = departure(tmp_path, log)
    leave(it, GATE)
    (entry,) = load(ledger_of(tmp_path, it.policy)).entries
    (event,) = entry.events
    assert (entry.study, entry.run, entry.round) == ("d" * 64, "r1", 1)
    assert event.mechanism == "discrete_gaussian"
    assert event.noise_multiplier == 2.0


def test_the_studys_own_epsilon_holds_over_rounds_and_runs(tmp_path: Path, log: AuditLog) -> None:
    z = multiplier_for(3, 1.0, 1e-6)
    for round in (1, 2):
        leave(departure(tmp_path, log, z=z, epsilon=1.0, round=round), GATE)
    leave(departure(tmp_path, log, z=z, epsilon=1.0, run="again"), GATE)
    assert rule_of(BudgetSpent, departure(tmp_path, log, z=z, epsilon=1.0, round=3)) == "study_epsilon"
    leave(departure(tmp_path, log, z=z, epsilon=1.0, round=2), GATE)  # a retry costs nothing


def test_the_assets_budget_holds_over_studies(tmp_path: Path, log: AuditLog) -> None:
    z = multiplier_for(2, 1.0, 1e-6)
    rules = {"budget": {"epsilon": 1.0, "delta": 1e-6}}
    for study in ("1", "2"):
        leave(departure(tmp_path, log, z=z, study_digest=study * 64, rules=rules), GATE)
    assert rule_of(BudgetSpent, departure(tmp_path, log, z=z, study_digest="3" * 64, rules=rules)) == "budget"


def test_nothing_leaves_without_a_secret_or_a_ledger(tmp_path: Path, log: AuditLog) -> None:
    assert rule_of(RunError, departure(tmp_path, log, secret=b"")) == "noise_secret"
    assert rule_of(RunError, departure(tmp_path, None)) == "noise_ledger"


def test_a_field_without_sensitivity_is_refused(tmp_path: Path, log: AuditLog) -> None:
    bare = (FIELDS[0], replace(FIELDS[1], sensitivity=None))
    it = departure(tmp_path, log, fields=bare)
    with pytest.raises(PolicyRefuses) as caught:
        leave(it, GATE)
    assert caught.value.rule == "sensitivity"
    assert not load(ledger_of(tmp_path, it.policy)).entries


@pytest.mark.parametrize("bad", [np.array([2e4, 0, 0]), np.array([np.nan, 0, 0]), np.array([np.inf, 0, 0])])
def test_bounds_and_finiteness_are_judged_before_noise(tmp_path: Path, log: AuditLog, bad: Any) -> None:
    kind = OutOfBounds if np.isfinite(bad).all() else ValueNotFinite
    it = departure(tmp_path, log, answer={"n": np.asarray(30.0), "s": bad})
    rule_of(kind, it)
    assert not load(ledger_of(tmp_path, it.policy)).entries


def test_a_sites_whole_array_is_scaled_to_its_sensitivity(tmp_path: Path, log: AuditLog) -> None:
    """`unit: site`: with hardly any noise, what leaves is the clipped array."""
    update = (Field("w", "update", 100.0, (50,), 1.0),)
    direction = np.linspace(-1, 1, 50)
    it = departure(tmp_path, log, unit="site", fields=update, answer={"w": 9 * direction}, z=0.001, epsilon=1e9)
    out = left(it)["w"]
    clipped = direction / np.linalg.norm(direction)
    assert np.abs(out - clipped).max() < 0.01
    assert np.linalg.norm(out) == pytest.approx(1.0, abs=0.01)
    small = left(replace(it, answer={"w": direction * 0.01}, run="r2"))["w"]
    assert np.abs(small - direction * 0.01).max() < 0.01


def test_rules_that_would_tell_what_the_noise_hides_are_not_asked(tmp_path: Path, log: AuditLog) -> None:
    few = {"n": np.asarray(2.0), "s": np.zeros(3), "@weights": np.array([1.0] + [1e-9] * 29)}
    out = left(departure(tmp_path, log, answer=few, rules={"local_minimum": 5}))
    assert set(out) == {"n", "s"}
