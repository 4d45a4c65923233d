"""A run folder is a Provenance Run Crate that rocrate-validator accepts, tells people the run, and tells no secret."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fivefold.errors import CrateInvalid
from fivefold.records.audit import AuditLog
from fivefold.records.crate import crate_of, write_crate
from fivefold.records.provenance import RunRecord
from fivefold.records.validation import changed_files, profile_faults
from fivefold.records.validation import validator as find_validator
from tests.records.crate_values import entities, failed, strange_names, types
from tests.records.run_values import KEY, run_record

METADATA = "ro-crate-metadata.json"


def refs(value: Any) -> list[str]:
    return [v["@id"] for v in (value if isinstance(value, list) else [value])]


# ---- the validator's word ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("profile", ["process-run-crate", "workflow-run-crate", "provenance-run-crate"])
def test_rocrate_validator_accepts_the_crate(crate: Path, validator: Path, profile: str) -> None:
    assert profile_faults(crate, validator, profile=profile) == []


def test_of_the_recommendations_only_web_addresses_and_a_readme_are_left_open(crate: Path, validator: Path) -> None:
    """There is no web address of a method, of a piece of software or of a hospital in a study file."""
    left = {fault.split(" [")[0] for fault in profile_faults(crate, validator, "recommended")}
    assert left <= {
        "The Application SHOULD have a url",
        "The SoftwareApplication id SHOULD be an absolute URI",
        "The organization SHOULD have a URL.",
        "The README.md SHOULD be about the crate",
        "The README.md SHOULD have text/markdown as its encodingFormat",
        "The Main Workflow SHOULD comply with Bioschemas ComputationalWorkflow profile version 1.0 or later",
    }


def without_licence(graph: dict[str, dict[str, Any]]) -> None:
    del graph["./"]["license"]


def without_language(graph: dict[str, dict[str, Any]]) -> None:
    del graph["study.yaml"]["programmingLanguage"]


def action_without_tool(graph: dict[str, dict[str, Any]]) -> None:
    del graph["#answers-North"]["instrument"]


def organising_a_file(graph: dict[str, dict[str, Any]]) -> None:
    graph["#orchestration"]["object"] = {"@id": "result.json"}


def parameter_without_type(graph: dict[str, dict[str, Any]]) -> None:
    del graph["#parameter-seed"]["additionalType"]


@pytest.mark.parametrize(
    "damage", [without_licence, without_language, action_without_tool, organising_a_file, parameter_without_type]
)
def test_a_damaged_crate_is_not_accepted(
    crate: Path, validator: Path, tmp_path: Path, damage: Callable[[dict[str, dict[str, Any]]], None]
) -> None:
    shutil.copytree(crate, folder := tmp_path / "run")
    value = json.loads((folder / METADATA).read_bytes())
    damage({entity["@id"]: entity for entity in value["@graph"]})
    (folder / METADATA).write_text(json.dumps(value))
    assert profile_faults(folder, validator)


def smallest(folder: Path) -> RunRecord:
    """One analysis, one setting of everything, no dictionary version, no figures."""
    whole = run_record(folder)
    return replace(whole, analyses=whole.analyses[:1], privacy={}, ethics="", purpose="", sites=whole.sites[:1])


@pytest.mark.parametrize("make", [smallest, failed, strange_names])
def test_other_runs_are_accepted_too(tmp_path: Path, validator: Path, make: Callable[[Path], RunRecord]) -> None:
    (tmp_path / "study.yaml").write_text("title: t\n")
    record = make(tmp_path)
    write_crate(tmp_path, record)
    assert profile_faults(tmp_path, validator) == []
    assert changed_files(tmp_path) == []
    found = entities(tmp_path)
    assert sum(name.startswith("#answers-") for name in found) == len(record.sites)
    assert sum(types(e) == ["HowToStep"] for e in found.values()) == 1 + len(record.analyses)


def test_a_study_file_whose_name_has_a_space_is_accepted(tmp_path: Path, validator: Path) -> None:
    (tmp_path / "our study.yaml").write_text("title: t\n")
    write_crate(tmp_path, replace(smallest(tmp_path), study_file="our study.yaml"))
    assert profile_faults(tmp_path, validator) == []
    assert changed_files(tmp_path) == []


# ---- what it tells -------------------------------------------------------------------------------------------------
def test_there_is_one_action_for_the_run_each_site_and_each_analysis(crate: Path) -> None:
    found = entities(crate)
    actions = [name for name, entity in found.items() if types(entity) == ["CreateAction"]]
    assert len(actions) == 1 + 3 + 3
    assert refs(found["./"]["mentions"]) == actions
    north, south = found["#answers-North"], found["#answers-South"]
    assert found[north["agent"]["@id"]]["name"] == "North Hospital"
    assert "Answered in 9 rounds and dropped in 0." in north["description"]
    assert "Answered in 6 rounds and dropped in 3." in south["description"]
    assert found["#run"]["instrument"] == {"@id": "study.yaml"}
    assert "result.json" in refs(found["#run"]["result"])


def test_every_action_is_tied_to_its_step_by_the_engine(crate: Path) -> None:
    found = entities(crate)
    controls = refs(found["#orchestration"]["object"])
    tied = {found[c]["object"]["@id"]: found[found[c]["instrument"]["@id"]] for c in controls}
    steps = set(refs(found["study.yaml"]["step"]))
    assert {step["@id"] for step in tied.values()} == steps
    assert set(tied) == {n for n, e in found.items() if types(e) == ["CreateAction"]} - {"#run"}
    for action, step in tied.items():
        assert found[action]["instrument"] == step["workExample"]


def test_each_round_tells_its_questions_who_answered_and_who_dropped(crate: Path) -> None:
    found = entities(crate)
    (last,) = [n for n in refs(found["#analysis-cox"]["object"]) if n.endswith("round-3")]
    assert found[last]["name"] == "cox, round 3: cox.score_and_information/1"
    assert found[last]["value"] == "answered: North, East; dropped: South"
    assert set(refs(found["#analysis-cox"]["result"])) == {"tables/cox.coefficients.csv", "plots/cox.1.svg", "plots/cox.1.png"}


def test_digests_settings_and_versions_are_told(crate: Path) -> None:
    found = entities(crate)
    assert found["#value-study-digest"]["value"] == "ab" * 32
    assert found["#value-dictionary"]["value"] == "cd" * 32
    assert found["#value-privacy-minimum_persons"]["value"] == 5
    assert found["#value-privacy-threshold"]["value"] == "none"
    assert found["#software-numpy"]["softwareVersion"] == "2.1.0"
    assert found["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert found["./"]["author"] == {"@id": "https://orcid.org/0000-0002-1825-0097"}


def test_every_reference_leads_somewhere_and_no_list_has_one_member(crate: Path) -> None:
    found = entities(crate)
    outside = {"https://w3id.org/ro/crate/1.1", "./"}
    for name, entity in found.items():
        for key, value in entity.items():
            assert not (isinstance(value, list) and len(value) == 1), f"{name} {key}"
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    assert one["@id"] in found or one["@id"] in outside, f"{name} {key}: {one}"


def test_the_same_run_gives_the_same_crate(crate: Path, tmp_path: Path) -> None:
    shutil.copytree(crate, other := tmp_path / "elsewhere")
    files = tuple(sorted(p.relative_to(other).as_posix() for p in other.rglob("*.*") if p.parent != other))
    record = run_record(other, files)
    assert crate_of(other, record) == crate_of(crate, record)
    write_crate(other, record)
    again = (other / METADATA).read_bytes()
    write_crate(other, record)
    assert (other / METADATA).read_bytes() == again


# ---- what it does not tell -----------------------------------------------------------------------------------------
def test_neither_journal_nor_paths_nor_private_keys_are_told(crate: Path) -> None:
    for name in (METADATA, "ro-crate-preview.html"):
        data = (crate / name).read_bytes()
        assert str(crate.parent).encode() not in data
        assert b"journal" not in data
        assert KEY.hex().encode() not in data


def test_a_crate_that_would_tell_a_path_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("title: t\n")
    with pytest.raises(CrateInvalid, match="on this machine"):
        write_crate(tmp_path, replace(smallest(tmp_path), error=f"cannot open {tmp_path}/data.csv", status="failed"))
    assert not (tmp_path / METADATA).exists()


def test_a_run_folder_without_its_study_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CrateInvalid, match=r"does not hold the study file study\.yaml") as found:
        write_crate(tmp_path, smallest(tmp_path))
    assert found.value.exit_code == 56


# ---- files against digests -----------------------------------------------------------------------------------------
def test_a_changed_a_missing_and_an_outside_file_are_found(crate: Path, tmp_path: Path) -> None:
    shutil.copytree(crate, folder := tmp_path / "run")
    assert changed_files(folder) == []
    for path in sorted(
        p for p in folder.rglob("*") if p.suffix in (".csv", ".svg", ".png", ".yaml") or p.name == "result.json"
    ):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert changed_files(folder) == [f"{path.relative_to(folder).as_posix()} was changed since the crate was written"]
        path.unlink()
        assert changed_files(folder) == [f"{path.relative_to(folder).as_posix()} is missing"]
        path.write_bytes(whole)
    value = json.loads((folder / METADATA).read_bytes())
    value["@graph"].append({"@id": "../../secret", "@type": "File"})
    (folder / METADATA).write_text(json.dumps(value))
    assert changed_files(folder) == ["../../secret lies outside the crate"]


def test_the_audit_log_may_grow_after_the_crate_was_written(crate: Path, tmp_path: Path) -> None:
    shutil.copytree(crate, folder := tmp_path / "run")
    with AuditLog(folder / "audit.jsonl", KEY, "coordinator") as log:
        log.closed(status="completed")
    assert changed_files(folder) == []


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"@graph": 3}', b'{"@graph": [{}]}'])
def test_a_folder_that_is_no_crate_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / METADATA).write_bytes(content)
    with pytest.raises(CrateInvalid) as found:
        changed_files(tmp_path)
    assert found.value.hint


# ---- where there is no validator -----------------------------------------------------------------------------------
def test_a_validator_is_found_where_it_is_named_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIVEFOLD_ROCRATE_VALIDATOR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_validator() is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rocrate-validator").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "rocrate-validator").chmod(0o755)
    assert find_validator() == tmp_path / "bin" / "rocrate-validator"
    (named := tmp_path / "named").write_text("")
    monkeypatch.setenv("FIVEFOLD_ROCRATE_VALIDATOR", str(named))
    assert find_validator() == named


def test_a_validator_that_does_not_work_is_one_sentence(crate: Path, tmp_path: Path) -> None:
    command = tmp_path / "rocrate-validator"
    command.write_text("#!/bin/sh\nexit 3\n")
    command.chmod(0o755)
    with pytest.raises(CrateInvalid, match="is of no use") as found:
        profile_faults(crate, command)
    assert "make_env.sh crate" in found.value.hint
