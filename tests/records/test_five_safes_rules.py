"""Each rule of the Five Safes profile: a whole crate keeps all of them, and one fault breaks one rule alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fivefold.records.bag import PAYLOAD
from fivefold.records.crate_graph import Crate
from fivefold.records.five_safes_crate import PROFILE, SHA512, crate_of, execution
from fivefold.records.five_safes_record import NOT_CHECKED, Disclosure
from fivefold.records.five_safes_rules import PHASES, RULES, broken
from tests.records.package_values import bag, evidence, package

Graph = dict[str, dict[str, Any]]
RUN = execution("51a01d9ea848a9d9")
LEAD = "https://orcid.org/0000-0002-1825-0097"


def put(entity: str, name: str, value: Any) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph[entity][name] = value

    return change


def drop(entity: str, name: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        del graph[entity][name]

    return change


def without(entity: str) -> Callable[[Graph], None]:
    """The entity is gone, and nothing mentions it."""

    def change(graph: Graph) -> None:
        del graph[entity]
        root = graph["./"]
        root["mentions"] = [m for m in root["mentions"] if m["@id"] != entity]

    return change


def no_run(graph: Graph) -> None:
    without(RUN)(graph)


def no_sign_offs(graph: Graph) -> None:
    for name in [n for n in graph if n.startswith("#sign-off-")]:
        without(name)(graph)


def outside(graph: Graph) -> None:
    graph["../secret.csv"] = {"@id": "../secret.csv", "@type": "File"}


def unmentioned(graph: Graph) -> None:
    graph["./"]["mentions"] = [m for m in graph["./"]["mentions"] if m["@id"] != "#check"]


def other_type(graph: Graph) -> None:
    graph["run/result.json"]["@type"] = "Thing"


def loose_output(graph: Graph) -> None:
    graph["run/"]["hasPart"] = [p for p in graph["run/"]["hasPart"] if p["@id"] != "run/result.json"]


def refused(graph: Graph) -> None:
    graph["#disclosure"]["actionStatus"] = "http://schema.org/FailedActionStatus"


SIGN_OFF = "#sign-off-North"
VIOLATIONS: dict[str, Callable[[Graph], None]] = {
    "descriptor_conforms_to_ro_crate_1_2": put(
        "ro-crate-metadata.json", "conformsTo", {"@id": "https://w3id.org/ro/crate/1.1"}
    ),
    "descriptor_is_about_the_root": put("ro-crate-metadata.json", "about", {"@id": "run/"}),
    "root_is_a_dataset": put("./", "@type", "CreativeWork"),
    "root_conforms_to_the_profile": put("./", "conformsTo", {"@id": "https://w3id.org/ro/crate/1.2"}),
    "references_stay_inside": outside,
    "one_main_entity": put("./", "mainEntity", [{"@id": "run/"}, {"@id": "run/study.signed.json"}]),
    "main_entity_is_a_dataset": put("run/", "@type", "File"),
    "main_entity_is_a_workflow_crate": drop("run/", "conformsTo"),
    "responsible_project": put("./", "sourceOrganization", {"@id": "#lead-organisation"}),
    "run_is_mentioned": no_run,
    "run_has_a_name": put(RUN, "name", "Run 12345"),
    "run_uses_the_main_entity": put(RUN, "instrument", {"@id": "run/study.signed.json"}),
    "run_was_asked_by_a_person": put(RUN, "agent", {"@id": "#lead-organisation"}),
    "person_has_an_affiliation": drop(LEAD, "affiliation"),
    "person_belongs_to_the_project": drop(LEAD, "memberOf"),
    "run_has_a_uuid": lambda graph: _renamed(graph, RUN, "#run"),
    "run_names_its_inputs": drop(RUN, "object"),
    "inputs_are_described": lambda graph: graph[RUN]["object"].append({"@id": "#nowhere"}),
    "inputs_are_parameters": drop("#value-seed", "exampleOfWork"),
    "run_has_a_state": put(RUN, "actionStatus", {"@id": "http://schema.org/CompletedActionStatus"}),
    "run_names_its_outputs": drop(RUN, "result"),
    "outputs_are_described": lambda graph: graph[RUN]["result"].append({"@id": "run/gone.csv"}),
    "outputs_are_of_a_known_type": other_type,
    "outputs_are_parts": loose_output,
    "assessments_are_mentioned": unmentioned,
    "assessments_have_a_phase": lambda graph: graph.update({"#extra": _assessment("#extra")}) or _mention(graph, "#extra"),
    "assessments_have_a_name": put("#check", "name", " "),
    "assessments_have_a_state": put("#check", "actionStatus", "http://schema.org/CompletetedActionStatus"),
    "times_are_rfc_3339": put("#check", "endTime", "2026-11-24 16:00"),
    "programs_have_a_provider": drop("#fivefold", "provider"),
    "assessments_have_an_agent": drop("#validation", "agent"),
    "assessments_are_of_the_root": put("#validation", "object", {"@id": "run/"}),
    "completed_assessments_have_an_end": drop("#check", "endTime"),
    "there_is_a_check": without("#check"),
    "check_is_of_the_root": put("#check", "object", {"@id": "run/"}),
    "check_names_its_algorithm": put("#check", "instrument", {"@id": "run/"}),
    "there_is_a_validation": without("#validation"),
    "validation_is_against_the_profile": put("#validation", "instrument", {"@id": SHA512}),
    "there_is_a_sign_off": no_sign_offs,
    "sign_off_has_an_agent": drop(SIGN_OFF, "agent"),
    "sign_off_has_an_end": drop(SIGN_OFF, "endTime"),
    "sign_off_names_its_policy": put(SIGN_OFF, "instrument", {"@id": "run/"}),
    "sign_off_is_of_the_workflow": put(SIGN_OFF, "object", [{"@id": "./"}, {"@id": "#project"}]),
    "sign_off_is_of_the_project": put(SIGN_OFF, "object", [{"@id": "./"}, {"@id": "run/"}]),
    "there_is_a_disclosure_check": without("#disclosure"),
    "refused_outputs_are_not_in_the_crate": refused,
    "root_has_a_date": drop("./", "datePublished"),
    "root_has_a_licence": drop("./", "license"),
    "root_has_a_publisher": drop("./", "publisher"),
}


def undeclared(folder: Path) -> None:
    (folder / "bagit.txt").write_text("BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n")
    _retagged(folder)


def changed_payload(folder: Path) -> None:
    (folder / PAYLOAD / "run" / "result.json").write_text("other")


def changed_tag(folder: Path) -> None:
    with (folder / "bag-info.txt").open("a") as file:
        file.write("Contact-Name: Somebody\n")


def no_identifier(folder: Path) -> None:
    _edit(folder, r"External-Identifier: .*\n", "")


def plain_identifier(folder: Path) -> None:
    _edit(folder, r"External-Identifier: .*\n", "External-Identifier: 12389\n")


BAGS: dict[str, Callable[[Path], None]] = {
    "bag_is_declared": undeclared,
    "bag_manifest_is_right": changed_payload,
    "bag_tags_are_right": changed_tag,
    "bag_has_an_identifier": no_identifier,
    "bag_identifier_is_a_uuid": plain_identifier,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bag") / "crate"
    folder.mkdir()
    return bag(folder)


def graph_of(**more: Any) -> Graph:
    return {e["@id"]: e for e in json.loads(json.dumps(crate_of(package(**more))))["@graph"]}


def names(faults: list[str]) -> set[str]:
    return {fault.rsplit("[", 1)[1].rstrip("]") for fault in faults}


def test_a_whole_crate_keeps_every_rule(whole: Path) -> None:
    assert broken(Crate(graph_of(), whole)) == []


@pytest.mark.parametrize(
    "more",
    [
        {"disclosure": NOT_CHECKED},
        {"sites": (evidence("North", withdrawn="2026-12-01T09:00:00Z"),)},
        {"completed": False, "parts": ("study.signed.json",)},
        {"others": {}},
        {"disclosure": Disclosure("completed", "Checked", files=("disclosure/a.json",), ended="2026-11-24T15:30:00Z")},
    ],
)
def test_other_crates_keep_every_rule_too(more: dict[str, Any]) -> None:
    assert broken(Crate(graph_of(**more))) == []


def test_every_rule_has_a_violation_of_its_own() -> None:
    assert [r.name for r in RULES if r.name not in VIOLATIONS | BAGS] == []
    assert set(VIOLATIONS | BAGS) == {r.name for r in RULES}
    assert len({r.name for r in RULES}) == len(RULES)
    assert all(r.words.endswith(".") and r.check.__name__ == r.name for r in RULES if r.words[-1] != "/")
    assert {r.level for r in RULES} == {"MUST", "SHOULD"}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_fails_for_its_rule_alone(name: str) -> None:
    graph = graph_of()
    VIOLATIONS[name](graph)
    assert names(broken(Crate(graph))) == {name}


@pytest.mark.parametrize("name", BAGS)
def test_a_damaged_bag_fails_for_its_rule_alone(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, folder := tmp_path / "crate")
    BAGS[name](folder)
    assert names(broken(Crate(graph_of(), folder))) == {name}


def test_what_is_no_crate_breaks_rules_and_raises_nothing() -> None:
    for metadata in ({}, {"@graph": 3}, {"@graph": [3, {"@type": "Dataset"}]}, {"@graph": [{"@id": "./", "mainEntity": None}]}):
        assert "one_main_entity" in names(broken(Crate.of(metadata)))


def test_the_phases_of_the_profile_are_all_told() -> None:
    crate = Crate(graph_of())
    assert {phase: len(crate.phases(phase)) for phase in PHASES} == {
        "CheckValue": 1,
        "ValidationCheck": 1,
        "SignOff": 2,
        "DisclosureCheck": 1,
    }
    assert crate.get("#disclosure")["agent"] == {
        "@id": "#checker-Chris-Checker-" + crate.get("#disclosure")["agent"]["@id"][-8:]
    }
    assert crate.get("./")["conformsTo"] == {"@id": PROFILE}


def _renamed(graph: Graph, old: str, new: str) -> None:
    graph[new] = graph.pop(old) | {"@id": new}
    graph["./"]["mentions"] = [{"@id": new} if m["@id"] == old else m for m in graph["./"]["mentions"]]


def _mention(graph: Graph, name: str) -> None:
    graph["./"]["mentions"].append({"@id": name})


def _assessment(name: str) -> dict[str, Any]:
    return {
        "@id": name,
        "@type": "AssessAction",
        "name": "An assessment of no phase",
        "object": {"@id": "./"},
        "agent": {"@id": "#fivefold"},
        "actionStatus": "http://schema.org/PotentialActionStatus",
    }


def _edit(folder: Path, pattern: str, text: str) -> None:
    path = folder / "bag-info.txt"
    path.write_text(re.sub(pattern, text, path.read_text()))
    _retagged(folder)


def _retagged(folder: Path) -> None:
    import hashlib

    path = folder / "tagmanifest-sha512.txt"
    listed = [line.split("  ", 1)[1] for line in path.read_text().splitlines()]
    sums = {name: hashlib.sha512((folder / name).read_bytes()).hexdigest() for name in listed}
    path.write_text("".join(f"{checksum}  {name}\n" for name, checksum in sums.items()))
