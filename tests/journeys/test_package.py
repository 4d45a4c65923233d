"""The lung study from a finished run to a package that an auditor can check: built, validated, shown, damaged."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth.keys import read_key
from fivefold.cli.main import run
from fivefold.coordinator.package_check import check, evidence_in
from fivefold.errors import AuditBroken
from fivefold.governance.proposals import read_proposal
from fivefold.governance.threats import as_json
from fivefold.records.bag import bag_faults, unzip_bag
from fivefold.study.digest import load_signed, sign_study
from tests.environments import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lung consortium with one run, `runs/one`."""
    out = tmp_path_factory.mktemp("package") / "lung"
    prepare.prepare("lung", out)
    assert run(["run", str(out / "study.yaml"), "--quiet", "--out", str(out / "runs" / "one")]) == 0
    return out


@pytest.fixture(scope="module")
def package(consortium: Path) -> Path:
    """The run packed, its evidence fetched from the site folders."""
    assert run(["crate", "build", str(consortium / "runs" / "one"), "--zip"]) == 0
    return consortium / "runs" / "one-crate"


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "one-crate"))


@pytest.fixture(scope="module", autouse=True)
def _validator() -> None:
    os.environ.setdefault("FIVEFOLD_ROCRATE_VALIDATOR", str(environment("crate") / "rocrate-validator"))


def test_the_package_is_valid_by_every_profile(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crate", "validate", str(package), "--recommended"]) == 0
    said = capsys.readouterr().out
    assert "rules hold, every checksum among them" in said
    assert "rocrate-validator accepts the crate (RO-Crate 1.2) and the nested Provenance Run Crate 0.5" in said
    assert "signed by the coordinator" in said
    assert said.count("approved by Custodian of inst-") == 5
    assert all(one.checked for one in check(package))


def test_it_tells_no_path_no_key_and_no_aggregate(package: Path, consortium: Path) -> None:
    secrets = [
        (consortium / "sites" / "inst-01-02" / "keys" / "snapshot.key").read_bytes().strip(),
        (consortium / "runs" / "one" / "coordinator.key").read_bytes().splitlines()[1],
        str(consortium).encode(),
    ]
    for path in (p for p in package.rglob("*") if p.is_file()):
        data = path.read_bytes()
        assert not any(secret in data for secret in secrets), path
    assert not list(package.rglob("*.journal"))
    assert not list(package.rglob("*.key"))
    assert (package / "data" / "journal" / "aggregates.sealed").is_file()


def test_it_holds_the_proposal_and_its_table_of_threats(package: Path) -> None:
    found = load_signed(package / "data" / "run" / "study.signed.json")
    table = json.loads((package / "data" / "threats.json").read_text("utf-8"))
    said = read_proposal((package / "data" / "proposal.json").read_bytes(), found.study, found.digest)
    assert said.threats == {t["threat"]: t["status"] for t in table}
    assert table == as_json(found.study)


def test_data_are_committed_by_a_keyed_digest_that_differs_between_sites(package: Path) -> None:
    said = evidence_in(package)
    assert len({s.commitment for s in said}) == len(said) == 5
    assert all(len(s.commitment) == 64 for s in said)


def test_the_register_of_studies(package: Path, consortium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read from what was signed: packages and site folders are copies, a log that is not whole is told, nothing is left out."""
    shutil.copytree(consortium / "runs", tmp_path / "desk" / "runs")
    signed = load_signed(consortium / "study.signed.json")
    draft = tmp_path / "desk" / "next.signed.json"
    other = replace(signed.study, title="Zones", agreements=replace(signed.study.agreements, public_benefit="Better advice"))
    draft.write_bytes(sign_study(other, read_key(consortium / "lead.key")).to_bytes())
    desk, table = tmp_path / "desk", tmp_path / "studies.csv"
    capsys.readouterr()
    assert run(["study", "list", str(desk), "--json", "--csv", str(table)]) == 0
    first, second = json.loads(capsys.readouterr().out)["studies"]
    assert (first["digest"], first["purpose"]) == (signed.digest, "To show a federated survival analysis")
    (only,) = first["runs"]
    assert (only["folder"], set(only["sites"].values()), only["released"]) == ("runs/one", {"outputs held"}, 0)
    assert (second["title"], second["public_benefit"], second["runs"]) == ("Zones", "Better advice", [])
    assert len(table.read_text("utf-8").splitlines()) == 1 + 5 + 5
    with (desk / "runs" / "one" / "audit.jsonl").open("ab") as log:
        log.write(b"{}\n")
    assert run(["study", "list", str(desk)]) == AuditBroken.exit_code
    shown = capsys.readouterr().out
    assert "runs/one  not known at inst-01-02, " in shown
    assert "✗ runs/one: " in shown
    assert "no run; proposed to inst-01-02, " in shown
    assert run(["study", "list", str(desk / "nowhere")]) == 2


def test_the_zip_holds_one_bag(package: Path, tmp_path: Path) -> None:
    inside = unzip_bag(package.with_name("one-crate.zip"), tmp_path)
    assert inside == tmp_path / "one-crate"
    assert bag_faults(inside) == []


def test_the_story_is_shown(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crate", "show", str(package)]) == 0
    said = capsys.readouterr().out
    for words in (
        "Survival with advanced lung cancer",
        "Sign-off of Institutions 1 and 2 by Custodian of inst-01-02: approved",
        "no output checker has decided yet (pending)",
        "Adding up and solving: cox",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("data/run/result.json", "was changed"),
        ("data/sign-offs/inst-01-02.json", "was changed"),
        ("tagmanifest-sha512.txt", "the signature of"),
    ],
)
def test_a_changed_byte_is_found(copy: Path, place: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fivefold.coordinator.package_check.validator", lambda: None)
    data = (copy / place).read_bytes()
    (copy / place).write_bytes(data.replace(b"a", b"b", 1))
    faults = [fault for one in check(copy) for fault in one.faults]
    assert any(words in fault for fault in faults), faults


def test_a_forged_sign_off_is_found_even_when_all_is_packed_anew(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever alters a sign-off and writes all manifests and the signature anew fails at the node's signature."""
    from fivefold.auth.keys import new_key
    from fivefold.records.bag import make_bag

    monkeypatch.setattr("fivefold.coordinator.package_check.validator", lambda: None)
    place = copy / "data" / "sign-offs" / "inst-01-02.json"
    value = json.loads(place.read_bytes())
    value["facts"]["data"] = "00" * 32
    place.write_text(json.dumps(value))
    shutil.move(copy / "data", folder := copy.with_name("forged"))
    make_bag(folder, {"External-Identifier": "urn:uuid:00000000-0000-5000-8000-000000000000"}, new_key(), "coordinator")
    faults = [fault for one in check(folder) for fault in one.faults]
    assert any("neither the lead's nor the coordinator's" in fault for fault in faults)
    assert any("its signature does not fit" in fault for fault in faults)


def test_a_package_is_never_overwritten_and_wants_every_sign_off(
    consortium: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = consortium / "runs" / "one"
    assert run(["crate", "build", str(one)]) == 56
    assert "never overwritten" in capsys.readouterr().err
    file = tmp_path / "alone.json"
    study, site = consortium / "study.signed.json", consortium / "sites" / "inst-10-12"
    assert run(["site", "evidence", str(study), "--site", str(site), "--out", str(file)]) == 0
    capsys.readouterr()
    assert run(["crate", "build", str(one), "--out", str(tmp_path / "p"), "--evidence", str(file)]) == 56
    assert "there is no evidence of inst-01-02, inst-03-07, inst-13-16, inst-21-33" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_a_run_whose_result_was_changed_is_not_packed(
    consortium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(consortium / "runs" / "one", changed := tmp_path / "one")
    text = (changed / "result.json").read_text("utf-8")
    (changed / "result.json").write_text(text.replace("0", "1", 1), "utf-8")
    assert run(["crate", "build", str(changed), "--sites", str(consortium / "sites")]) == 56
    assert "result.json was changed since the crate was written" in capsys.readouterr().err
