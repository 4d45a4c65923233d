"""Freezing a cohort: who may, what is kept and how, and when a later snapshot is refused."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.errors import (
    DifferencingRefused,
    FivefoldError,
    MappingInvalid,
    NotApproved,
    PolicyRefuses,
    SnapshotProblem,
    StorageFull,
    TooFewPersons,
    UnitUnknown,
)
from fivefold.governance import approvals
from fivefold.records.audit import entries, verify
from fivefold.site import snapshot
from fivefold.site.folder import add_opt_out
from fivefold.site.preparation import close, inspect, open_prepared, prepare, snapshot_path
from fivefold.study.definition import Cohort


def approved(consortium: Any, now: Any, **changes: Any) -> Any:
    signed = consortium.signed(**changes)
    approvals.approve(consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now)
    return signed


def freeze(consortium: Any, signed: Any, now: Any, **more: Any) -> Any:
    return prepare(consortium.site, signed.study, signed.digest, when=now, **more)


def events(consortium: Any) -> list[str]:
    return [e.event for e in entries(consortium.site.state / "audit.jsonl")]


def test_no_row_is_read_before_the_approval(consortium: Any, now: Any) -> None:
    signed = consortium.signed()
    (consortium.site.path / "rows.csv").unlink()  # reading it would be another error
    with pytest.raises(NotApproved):
        freeze(consortium, signed, now)


def test_every_round_reads_the_same_rows(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    first = freeze(consortium, signed, now)
    assert first.table.persons == 40
    assert set(first.table.columns) == {"age", "weight", "sex", "heavy"}
    consortium.write_rows(skip=tuple(range(20)))
    again, opened = freeze(consortium, signed, now), open_prepared(consortium.site, signed.study, signed.digest)
    for other in (again, opened):
        assert other.tags == first.tags
        assert other.report == first.report
        assert np.array_equal(other.table.person, first.table.person)
        for name in first.table.columns:
            assert np.array_equal(other.table[name], first.table[name], equal_nan=True)
    assert events(consortium).count("snapshot") == 1
    verify(consortium.site.state / "audit.jsonl")


def test_nothing_on_disk_can_be_read_or_guessed(consortium: Any, now: Any) -> None:
    consortium.write_rows("Zebra,600,77777,1")
    signed = approved(consortium, now)
    prepared = freeze(consortium, signed, now)
    kept = [p for p in consortium.site.state.rglob("*") if p.is_file()]
    weights = np.sort(prepared.table["weight"])
    for path in kept:
        data = path.read_bytes()
        assert b"Zebra" not in data
        assert not any(w.tobytes() in data for w in weights[:10])
        if path.parent.name in ("snapshots", "persons"):
            assert path.stat().st_mode & 0o077 == 0
    # the same rows at another site, with another secret, have other digests
    (consortium.site.keys / "snapshot.key").write_text("ab" * 32)
    secret = consortium.site.secret()
    assert snapshot.tag(secret, "mapping", consortium.site.mapping().digest) != prepared.tags.mapping


@pytest.mark.parametrize("where", ["rows", "key", "secret", "swap", "cut", "gone"])
def test_an_altered_snapshot_is_found(consortium: Any, now: Any, where: str) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    path = snapshot_path(consortium.site, signed.digest)
    key = path.with_name(path.name + ".key")
    if where in ("rows", "key"):
        target = path if where == "rows" else key
        data = bytearray(target.read_bytes())
        data[-1] ^= 1
        target.write_bytes(data)
    elif where == "secret":
        (consortium.site.keys / "snapshot.key").write_text("ab" * 32)
    elif where == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif where == "gone":
        path.unlink()
    else:
        other = path.with_name(f"{'0' * 64}.snapshot")
        path.rename(other)
        key.rename(other.with_name(other.name + ".key"))
        signed = signed._replace(digest="0" * 64)
    with pytest.raises(SnapshotProblem) as caught:
        open_prepared(consortium.site, signed.study, signed.digest)
    assert caught.value.hint


def test_two_columns_exchanged_on_disk_are_found(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    path = snapshot_path(consortium.site, signed.digest)
    parts = snapshot._parts(path.read_bytes())
    parts[2], parts[3] = parts[3], parts[2]
    path.write_bytes(snapshot.MAGIC + b"".join(len(p).to_bytes(8, "big") + p for p in parts))
    with pytest.raises(SnapshotProblem):
        open_prepared(consortium.site, signed.study, signed.digest)


def test_opt_outs_are_out_and_the_list_must_be_there(consortium: Any, now: Any) -> None:
    site = consortium.site
    assert add_opt_out(site, "P003")
    assert not add_opt_out(site, " P003 ")
    signed = approved(consortium, now)
    prepared = freeze(consortium, signed, now)
    assert prepared.table.persons == 39
    assert prepared.report["persons_opted_out"] == 1
    assert "P003" not in (site.state / "audit.jsonl").read_text()
    with pytest.raises(PolicyRefuses, match="one line"):
        add_opt_out(site, "a\nb")
    (site.path / "opt-outs.txt").unlink()
    with pytest.raises(PolicyRefuses) as caught:
        freeze(consortium, signed, now, again=True)
    assert caught.value.rule == "opt_outs"


@pytest.mark.parametrize("persons", [1, 4, 5])
def test_too_few_persons(consortium: Any, now: Any, persons: int) -> None:
    rows = [f"P{i},600,70000,1" for i in range(persons) for _ in range(9)]  # many rows do not make persons
    (consortium.site.path / "rows.csv").write_text("\n".join(["id,age_months,weight_g,gender", *rows]) + "\n")
    signed = approved(consortium, now)
    if persons >= 5:
        assert freeze(consortium, signed, now).table.persons == 5
        return
    with pytest.raises(TooFewPersons) as caught:
        freeze(consortium, signed, now)
    assert caught.value.public() == {"code": "TooFewPersons", "rule": "minimum_persons", "variable": ""}
    assert not snapshot_path(consortium.site, signed.digest).exists()


@pytest.mark.parametrize("fewer", range(1, 7))
def test_a_later_snapshot_that_differs_by_a_few_is_refused(consortium: Any, now: Any, fewer: int) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    consortium.write_rows(skip=tuple(range(fewer)))
    other = approved(consortium, now, title="A second study over the same records")
    if fewer >= 5:
        assert freeze(consortium, other, now).table.persons == 40 - fewer
        return
    for it, more in ((other, {}), (signed, {"again": True})):
        with pytest.raises(DifferencingRefused) as caught:
            freeze(consortium, it, now, **more)
        assert caught.value.rule == "minimum_persons"
    assert not snapshot_path(consortium.site, other.digest).exists()
    assert open_prepared(consortium.site, signed.study, signed.digest).table.persons == 40  # nothing lost


def test_one_person_in_and_another_out_are_two(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    consortium.write_rows("Q1,600,70000,1", skip=(0,))
    with pytest.raises(DifferencingRefused):
        freeze(consortium, signed, now, again=True)


def test_one_changed_value_is_a_difference_too(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    consortium.write_rows(heavier=7)
    with pytest.raises(DifferencingRefused):
        freeze(consortium, signed, now, again=True)
    # another study that reads other variables has the same persons: no difference that shows
    variables = {"age": "exposure", "sex": "adjustment"}
    analyses = (replace(signed.study.analyses[0], variables=("age",)),)
    other = approved(consortium, now, variables=variables, derived=(), analyses=analyses)
    assert freeze(consortium, other, now).table.persons == 40


def test_a_cohort_that_leaves_out_one_person_is_refused(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    oldest = float(np.sort(freeze(consortium, signed, now).table["age"])[-1])
    narrower = approved(consortium, now, cohort=Cohort(include=("age >= 18", f"age < {oldest - 1e-6:.6f}")))
    with pytest.raises(DifferencingRefused):
        freeze(consortium, narrower, now)


def test_the_record_of_persons_outlives_the_rows(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    assert close(consortium.site, signed.digest)
    assert not close(consortium.site, signed.digest)
    path = snapshot_path(consortium.site, signed.digest)
    assert not path.exists()
    assert not path.with_name(path.name + ".key").exists()
    assert events(consortium)[-2:] == ["snapshot deletion", "snapshot deleted"]
    with pytest.raises(SnapshotProblem, match="no snapshot"):
        open_prepared(consortium.site, signed.study, signed.digest)
    consortium.write_rows(skip=(0,))
    with pytest.raises(DifferencingRefused):
        freeze(consortium, signed, now)
    sealed = next((consortium.site.state / "snapshots" / "persons").glob("*.sealed"))
    sealed.write_bytes(sealed.read_bytes()[:-1])
    with pytest.raises(SnapshotProblem, match="earlier snapshots"):
        freeze(consortium, signed, now)


def test_the_same_persons_may_be_frozen_again(consortium: Any, now: Any) -> None:
    signed = approved(consortium, now)
    freeze(consortium, signed, now)
    assert freeze(consortium, signed, now, again=True).table.persons == 40
    assert len(list((consortium.site.state / "snapshots" / "persons").glob("*.sealed"))) == 1


def test_a_full_disk_loses_nothing(consortium: Any, now: Any) -> None:
    rows = [f"P{i:05d},600,70000,1" for i in range(3000)]
    (consortium.site.path / "rows.csv").write_text("\n".join(["id,age_months,weight_g,gender", *rows]) + "\n")
    signed = approved(consortium, now)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(StorageFull):
            freeze(consortium, signed, now)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert events(consortium)[-1] == "snapshot refused"
    assert not snapshot_path(consortium.site, signed.digest).exists()
    assert not list(consortium.site.state.rglob("*.partial"))
    assert freeze(consortium, signed, now).table.persons == 3000


def test_inspection_needs_no_approval_and_keeps_nothing(consortium: Any) -> None:
    found = inspect(consortium.site, consortium.study)
    assert found.report.persons == 40
    assert not (consortium.site.state / "snapshots").exists()


SECRET = "SECRET4711"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"source: {{kind: csv, path: {SECRET}.csv}}\nperson: id\nvariables: {{age: a, weight: b, sex: c}}", FivefoldError),
        (
            f"source: {{kind: sql, url_env: {SECRET}, table: x}}\nperson: id\nvariables: {{age: a, weight: b, sex: c}}",
            FivefoldError,
        ),
        (f"source: {{kind: csv, path: rows.csv}}\nperson: {SECRET}\nvariables: {{age: a, weight: b, sex: c}}", FivefoldError),
        (
            f"source: {{kind: csv, path: rows.csv}}\nperson: id\nvariables: {{age: {SECRET}, weight: weight_g, sex: gender}}",
            FivefoldError,
        ),
        (f"source: {{kind: csv, path: rows.csv}}\nperson: id\n{SECRET}: 1\nvariables: {{}}", MappingInvalid),
        (
            f"source: {{kind: csv, path: rows.csv}}\nperson: id\nvariables: "
            f"{{age: {{column: age_months, unit: {SECRET}}}, weight: weight_g, sex: gender}}",
            UnitUnknown,
        ),
        (
            f"source: {{kind: csv, path: rows.csv}}\nperson: id\nvariables: "
            f"{{age: age_months, weight: weight_g, sex: {{column: gender, codes: {{1: {SECRET}}}}}}}",
            MappingInvalid,
        ),
        (f"&{SECRET} [", MappingInvalid),
        (
            "source: {kind: csv, path: rows.csv}\nperson: id\non_invalid: refuse\n"
            "variables: {age: {column: age_months, unit: month}, "
            "weight: {column: weight_g, unit: g}, sex: {column: gender, codes: {1: male}}}",
            FivefoldError,
        ),
    ],
)
def test_no_secret_shows_in_what_may_leave(consortium: Any, now: Any, text: str, kind: type[FivefoldError]) -> None:
    site: Path = consortium.site.path
    (site / "rows.csv").write_text(f"id,age_months,weight_g,gender,{SECRET}2\n{SECRET},{SECRET},{SECRET},{SECRET},1\n")
    signed = approved(consortium, now)
    (site / "mapping.yaml").write_text(text)
    with pytest.raises(kind) as caught, consortium.site.act("preparation"):
        freeze(consortium, signed, now)
    public = caught.value.public()
    assert SECRET not in str(public)
    assert public["variable"] in ("", "age", "weight", "sex")
    assert SECRET not in (consortium.site.state / "audit.jsonl").read_text()
    assert events(consortium)[-1] == "preparation refused"
