"""A packed lung run says again what it said: from its aggregates, on two CPU kernels, and by CWL from the site folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples import prepare
from fivefold.auth.keys import new_key, public_of, write_key
from fivefold.cli.main import run
from fivefold.coordinator.package import build
from fivefold.coordinator.package_check import study_of
from fivefold.records.bag import bag_info, make_bag
from fivefold.records.sealed_journal import OPEN, Aggregate, packed, read_aggregates
from fivefold.results.reproduce import compared, differing_rounds, reproduce
from fivefold.results.write import comparable, read_json
from fivefold.site.evidence import evidence_of
from fivefold.site.folder import opened, read_private
from tests.environments import environment
from tests.journeys.consortium import command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduce") / "lung"
    prepare.prepare("lung", out)
    assert run(["run", str(out / "study.yaml"), "--quiet", "--out", str(out / "runs" / "one")]) == 0
    assert run(["crate", "build", str(out / "runs" / "one"), "--journal", "open"]) == 0
    return out


@pytest.fixture(scope="module")
def package(consortium: Path) -> Path:
    return consortium / "runs" / "one-crate"


@pytest.fixture(scope="module")
def aggregates(package: Path) -> tuple[Aggregate, ...]:
    return read_aggregates(package / "data", None)


@pytest.fixture(scope="module")
def tools() -> Path:
    """The folder of the commands runcrate and cwltool."""
    return environment("workflow")


# ---- from the aggregates --------------------------------------------------------------------------------------------
def test_the_result_has_the_same_digest(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crate", "reproduce", str(package), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == "identical"
    assert found["then"] == found["now"]
    assert found["drifted"] == 0


def test_a_sealed_journal_opens_for_coordinator_and_auditor_alone(
    consortium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, auditor, stranger = consortium / "runs" / "one", tmp_path / "auditor.key", tmp_path / "stranger.key"
    for path in (auditor, stranger):
        write_key(path, new_key())
    reader = public_of(read_private(auditor))
    study = study_of(consortium / "runs" / "one-crate")
    said = [evidence_of(opened(consortium / "sites" / s.name), study) for s in study.study.sites]
    build(one, sealed := tmp_path / "sealed", said, read_private(one / "coordinator.key"), readers=[reader])
    for key in (one / "coordinator.key", auditor):
        assert run(["crate", "reproduce", str(sealed), "--key", str(key)]) == 0
    capsys.readouterr()
    assert run(["crate", "reproduce", str(sealed), "--key", str(stranger)]) == 56
    assert "not sealed for this key" in capsys.readouterr().err
    assert run(["crate", "reproduce", str(sealed)]) == 56
    assert "is sealed" in capsys.readouterr().err


def test_a_changed_package_is_not_replayed_at_all(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(package, changed := tmp_path / "changed")
    place = changed / "data" / "run" / "result.json"
    place.write_text(place.read_text("utf-8").replace("0.", "1.", 1), "utf-8")
    assert run(["crate", "reproduce", str(changed)]) == 56
    assert "result.json" in capsys.readouterr().err


def test_a_changed_result_is_named_by_its_place(package: Path, aggregates: tuple[Aggregate, ...]) -> None:
    result = read_json(package / "data" / "run")
    study = study_of(package).study
    cox = next(a for a in result["analyses"] if a["name"] == "cox")
    cox["tables"][0]["rows"][1][1] *= 1.001
    found = reproduce(study, aggregates, result)
    assert found.outcome == "different"
    assert found.difference.startswith("[cox].tables[coefficients].rows[1][1]: was ")


def test_changed_aggregates_are_found(package: Path, aggregates: tuple[Aggregate, ...]) -> None:
    """One more death in one total: the result is another, and the first table that tells it is named."""
    study, result = study_of(package).study, read_json(package / "data" / "run")
    last = aggregates[2]
    name = next(n for n, v in last.totals[0].items() if v.size)
    other = {n: v + (n == name) for n, v in last.totals[0].items()}
    found = reproduce(study, [*aggregates[:2], replace(last, totals=(other, *last.totals[1:])), *aggregates[3:]], result)
    assert found.outcome == "different"
    assert found.difference.startswith("[description]")
    assert (
        reproduce(study, aggregates[:-1], result).difference
        == f"the study asks a round {len(aggregates)} that the journal does not have"
    )
    extra = replace(aggregates[-1], round=len(aggregates) + 1)
    assert "is not asked by the study any more" in reproduce(study, [*aggregates, extra], result).difference


def test_a_changed_journal_is_named_even_where_all_is_packed_and_signed_anew(
    consortium: Path, package: Path, aggregates: tuple[Aggregate, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(package / "data", forged := tmp_path / "forged")
    last = aggregates[2]
    name = next(n for n, v in last.totals[0].items() if v.size)
    other = {n: v + (n == name) for n, v in last.totals[0].items()}
    changed = [*aggregates[:2], replace(last, totals=(other, *last.totals[1:])), *aggregates[3:]]
    (forged / OPEN).write_bytes(packed(changed))
    make_bag(forged, bag_info(package), read_private(consortium / "runs" / "one" / "coordinator.key"), "coordinator")
    assert run(["crate", "reproduce", str(forged)]) == 91
    assert "does not follow from the aggregates. First difference: [description]" in capsys.readouterr().err


def test_two_cpu_kernels_give_the_same_numbers(package: Path) -> None:
    """OpenBLAS adds up in another order on another CPU: no bit-for-bit promise, but within 1e-10."""
    found = {}
    for kernel in ("Haswell", "Prescott", "Nehalem"):
        words = command("crate", "reproduce", package, "--json")
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_CORETYPE": kernel},
        )
        found[kernel] = json.loads(done.stdout)
    assert all(f["outcome"] in ("identical", "numerical") and f["largest"] <= 1e-10 for f in found.values())
    assert any(f["outcome"] == "numerical" for f in found.values()), found


def test_the_tolerance_is_one_part_in_ten_thousand_million() -> None:
    then = [{"name": "a", "rows": [[1.0, "x", None], [1000.0, "y", 3]]}]

    def now(value: float) -> object:
        return [{"name": "a", "rows": [[1.0, "x", None], [value, "y", 3]]}]

    assert compared(then, now(1000.0 + 0.9e-7)) == ("", pytest.approx(0.9e-10, rel=1e-3))
    assert compared(then, now(1000.0 + 1.1e-7))[0].startswith("[a].rows[1][0]: was 1000.0")
    for changed in ([{"name": "a", "rows": [[1.0, "x", 0.0], [1000.0, "y", 3]]}], [{"name": "a", "rows": []}], [{"name": "b"}]):
        assert compared(then, changed)[0]


# ---- against another run --------------------------------------------------------------------------------------------
def test_another_run_on_the_same_data_agrees_and_on_changed_data_is_told_apart(
    consortium: Path, package: Path, aggregates: tuple[Aggregate, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = consortium / "runs" / "one"
    assert run(["crate", "reproduce", str(package), "--against", str(one)]) == 0
    name = next(iter(aggregates[3].totals[0]))
    other = {
        n: np.where(np.arange(v.size).reshape(v.shape) == 0, v + (n == name), v) for n, v in aggregates[3].totals[0].items()
    }
    changed = [*aggregates[:3], replace(aggregates[3], totals=(other,)), *aggregates[4:]]
    assert differing_rounds(aggregates, changed) == f"round 4: the total {name!r} differs"
    assert differing_rounds(aggregates, aggregates[:-1]) == f"round {len(aggregates)}: only one of the runs has it"
    assert differing_rounds(aggregates, aggregates) == ""


# ---- by other people's tools ---------------------------------------------------------------------------------------
def test_runcrate_reads_the_nested_run(package: Path, tools: Path) -> None:
    words = [str(tools / "runcrate"), "report", str(package / "data" / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    for line in (
        "action: #run",
        "instrument: study.signed.json",
        "action: #analysis-cox",
        "action: #answers-inst-01-02",
        "result.json <-",
    ):
        assert line in done.stdout, line


def test_cwltool_plays_the_run_again(consortium: Path, package: Path, tools: Path, tmp_path: Path) -> None:
    sites = [word for path in sorted((consortium / "sites").iterdir()) for word in ("--sites", str(path))]
    before = {p: p.read_bytes() for p in (consortium / "sites").rglob("*") if p.is_file()}
    words = [str(tools / "cwltool"), "--preserve-environment", "PYTHONPATH", "--outdir", str(tmp_path / "out"), "--quiet"]
    words += [str(package / "data" / "run" / "workflow.cwl"), "--study", str(consortium / "study.signed.json"), *sites]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert comparable(tmp_path / "out" / "run") == comparable(consortium / "runs" / "one")
    assert before == {p: p.read_bytes() for p in (consortium / "sites").rglob("*") if p.is_file()}


def test_a_run_on_changed_data_is_told_apart_at_its_first_round(
    consortium: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A site's rows change and are frozen anew: the later run of the same study differs, and the round is named."""
    shutil.copytree(consortium / "sites", sites := tmp_path / "sites")
    rows = sites / "inst-01-02" / "patients.csv"
    head, *lines = rows.read_text("utf-8").splitlines()
    rows.write_text("\n".join([head, *(line for i, line in enumerate(lines) if i % 3)]) + "\n", "utf-8")
    signed = consortium / "study.signed.json"
    assert run(["site", "prepare", str(signed), "--again", "--site", str(sites / "inst-01-02")]) == 0
    assert run(["run", str(signed), "--sites", str(sites), "--quiet", "--out", str(tmp_path / "two")]) == 0
    capsys.readouterr()
    assert run(["crate", "reproduce", str(package), "--against", str(tmp_path / "two")]) == 91
    assert "the runs differ. First difference: round 1: the total" in capsys.readouterr().err
