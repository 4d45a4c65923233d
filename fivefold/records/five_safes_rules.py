"""Five Safes RO-Crate 0.4, rule by rule: what a crate MUST and SHOULD be. Read it from top to bottom.

Source: https://w3id.org/5s-crate/0.4 (2023-09-15). A rule looks at one thing and is silent where what it would look at is
missing: another rule names that. `rocrate-validator` has no such profile; it judges the base profile and the nested run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import unquote

from fivefold.records.crate_graph import Crate, Entity, ids, kinds

Level = Literal["MUST", "SHOULD"]
Faults = Iterator[str]

PROFILE = "https://w3id.org/5s-crate/0.4"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate"
STATES = {f"http://schema.org/{s}ActionStatus": s for s in ("Potential", "Active", "Completed", "Failed")}
PHASES = ("CheckValue", "ValidationCheck", "SignOff", "DisclosureCheck")
OUTPUTS = {"File", "Dataset", "Collection", "DigitalDocument", "PropertyValue"}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Rule:
    """A named rule: its level, the phase of the profile it belongs to, its sentence, and the check that yields faults."""

    name: str
    level: Level
    part: str
    words: str
    check: Callable[[Crate], Faults]


RULES: list[Rule] = []


def rule(level: Level, part: str, words: str) -> Callable[[Callable[[Crate], Faults]], Callable[[Crate], Faults]]:
    def keep(check: Callable[[Crate], Faults]) -> Callable[[Crate], Faults]:
        RULES.append(Rule(check.__name__, level, part, words, check))
        return check

    return keep


def broken(crate: Crate, level: Level | None = None) -> list[str]:
    """A sentence for each fault, its rule in brackets; `level` MUST leaves the recommendations out."""
    return [f"{said} [{r.name}]" for r in RULES if level is None or r.level == level for said in r.check(crate)]


# ---- the metadata file ----------------------------------------------------------------------------------------------
@rule("MUST", "metadata", "The descriptor conforms to RO-Crate 1.2 or a later minor version.")
def descriptor_conforms_to_ro_crate_1_2(crate: Crate) -> Faults:
    found = [re.fullmatch(r"https://w3id.org/ro/crate/1\.(\d+)(-DRAFT)?", i) for i in ids(crate.descriptor.get("conformsTo"))]
    if not any(m and int(m[1]) >= 2 for m in found):
        yield "ro-crate-metadata.json does not declare RO-Crate 1.2 or later"


@rule("MUST", "metadata", "The descriptor is about the root, whose identifier is ./")
def descriptor_is_about_the_root(crate: Crate) -> Faults:
    if ids(crate.descriptor.get("about")) != ["./"]:
        yield "ro-crate-metadata.json is not about ./"


@rule("MUST", "metadata", "The root is a Dataset.")
def root_is_a_dataset(crate: Crate) -> Faults:
    if "Dataset" not in kinds(crate.root):
        yield "the root ./ is not a Dataset"


@rule("SHOULD", "metadata", "The root says that it conforms to this profile.")
def root_conforms_to_the_profile(crate: Crate) -> Faults:
    if PROFILE not in ids(crate.root.get("conformsTo")):
        yield f"the root does not conform to {PROFILE}"


@rule("MUST", "metadata", "No reference leads outside the crate.")
def references_stay_inside(crate: Crate) -> Faults:
    for name in crate.entities:
        path = unquote(name)
        if path.startswith("/") or ".." in path.split("#")[0].split("/") or re.match(r"(?i)file:", path):
            yield f"{name} lies outside the crate"


@rule("MUST", "metadata", "The root has exactly one main entity.")
def one_main_entity(crate: Crate) -> Faults:
    if len(ids(crate.root.get("mainEntity"))) != 1:
        yield "the root has not exactly one mainEntity"


@rule("MUST", "metadata", "The main entity is a Dataset, described in the crate.")
def main_entity_is_a_dataset(crate: Crate) -> Faults:
    if crate.workflow and "Dataset" not in kinds(crate.get(crate.workflow)):
        yield f"the main entity {crate.workflow} is not a Dataset of the crate"


@rule("MUST", "metadata", "The main entity conforms to Workflow RO-Crate.")
def main_entity_is_a_workflow_crate(crate: Crate) -> Faults:
    found = crate.get(crate.workflow)
    if found and not any(i.startswith(WORKFLOW_CRATE) for i in ids(found.get("conformsTo"))):
        yield "the main entity does not conform to Workflow RO-Crate"


# ---- the request ----------------------------------------------------------------------------------------------------
@rule("MUST", "request", "The root names the responsible project as its sourceOrganization.")
def responsible_project(crate: Crate) -> Faults:
    if not any("Project" in kinds(e) for e in crate.follow(crate.root, "sourceOrganization")):
        yield "the root's sourceOrganization is not a Project"


@rule("MUST", "request", "The root mentions at least one CreateAction.")
def run_is_mentioned(crate: Crate) -> Faults:
    if not any("CreateAction" in kinds(e) for e in crate.follow(crate.root, "mentions")):
        yield "the root mentions no CreateAction"


@rule("MUST", "request", "The run has a name of ten characters or more.")
def run_has_a_name(crate: Crate) -> Faults:
    if crate.run and len(str(crate.run.get("name", ""))) < 10:
        yield "the run's name has fewer than ten characters"


@rule("MUST", "request", "The run's instrument is the main entity.")
def run_uses_the_main_entity(crate: Crate) -> Faults:
    if crate.run and crate.workflow and ids(crate.run.get("instrument")) != [crate.workflow]:
        yield "the run's instrument is not the main entity"


@rule("MUST", "request", "The run's agent is a Person.")
def run_was_asked_by_a_person(crate: Crate) -> Faults:
    if crate.run and not _agents(crate):
        yield "the run's agent is not a Person of the crate"


@rule("MUST", "request", "The person who asked has an affiliation.")
def person_has_an_affiliation(crate: Crate) -> Faults:
    for person in _agents(crate):
        if not any("Organization" in kinds(e) for e in crate.follow(person, "affiliation")):
            yield f"{person['@id']} has no affiliation to an Organization"


@rule("MUST", "request", "The person who asked is a member of the responsible project.")
def person_belongs_to_the_project(crate: Crate) -> Faults:
    projects = {e["@id"] for e in crate.follow(crate.root, "sourceOrganization") if "Project" in kinds(e)}
    for person in _agents(crate) if projects else ():
        if not projects & set(ids(person.get("memberOf"))):
            yield f"{person['@id']} is not a member of the responsible project"


@rule("SHOULD", "request", "The run's identifier is based on a UUID.")
def run_has_a_uuid(crate: Crate) -> Faults:
    if crate.run and not re.search(UUID, str(crate.run["@id"])):
        yield "the run's identifier holds no UUID"


@rule("SHOULD", "request", "The run names its inputs.")
def run_names_its_inputs(crate: Crate) -> Faults:
    if crate.run and not ids(crate.run.get("object")):
        yield "the run names no input"


@rule("MUST", "request", "Every input is described in the crate.")
def inputs_are_described(crate: Crate) -> Faults:
    for name in ids(crate.run.get("object")):
        if name not in crate.entities:
            yield f"the input {name} is not described"


@rule("SHOULD", "request", "Every input is an example of a formal parameter.")
def inputs_are_parameters(crate: Crate) -> Faults:
    for found in crate.follow(crate.run, "object"):
        if not any("FormalParameter" in kinds(e) for e in crate.follow(found, "exampleOfWork")):
            yield f"the input {found['@id']} is not the example of a FormalParameter"


# ---- the run --------------------------------------------------------------------------------------------------------
@rule("MUST", "run", "The run's state is one of the four of schema.org.")
def run_has_a_state(crate: Crate) -> Faults:
    if crate.run and not _state(crate.run):
        yield "the run has no actionStatus of the profile"


@rule("SHOULD", "run", "A completed run names its outputs.")
def run_names_its_outputs(crate: Crate) -> Faults:
    if _state(crate.run) == "Completed" and not ids(crate.run.get("result")):
        yield "the run is completed and names no result"


@rule("MUST", "run", "Every output is described in the crate.")
def outputs_are_described(crate: Crate) -> Faults:
    for name in ids(crate.run.get("result")):
        if name not in crate.entities:
            yield f"the output {name} is not described"


@rule("SHOULD", "run", "Outputs are files, folders, collections, documents or values.")
def outputs_are_of_a_known_type(crate: Crate) -> Faults:
    for found in crate.follow(crate.run, "result"):
        if not OUTPUTS & set(kinds(found)):
            yield f"the output {found['@id']} is of no type that the profile names"


@rule("MUST", "run", "Every output is a part of the root, through folders where need be.")
def outputs_are_parts(crate: Crate) -> Faults:
    parts = set(crate.inside("./"))
    for found in crate.follow(crate.run, "result"):
        if {"File", "Dataset"} & set(kinds(found)) and found["@id"] not in parts:
            yield f"the output {found['@id']} is no part of the root"


# ---- every assessment -----------------------------------------------------------------------------------------------
@rule("MUST", "assessments", "The root mentions every assessment.")
def assessments_are_mentioned(crate: Crate) -> Faults:
    mentioned = set(ids(crate.root.get("mentions")))
    for found in crate.all("AssessAction"):
        if found["@id"] not in mentioned:
            yield f"the root does not mention {found['@id']}"


@rule("MUST", "assessments", "Every assessment says which phase it is.")
def assessments_have_a_phase(crate: Crate) -> Faults:
    for found in crate.all("AssessAction"):
        if not any(i.startswith("https://w3id.org/shp#") for i in ids(found.get("additionalType"))):
            yield f"{found['@id']} names no phase as additionalType"


@rule("MUST", "assessments", "Every assessment has a name for people.")
def assessments_have_a_name(crate: Crate) -> Faults:
    for found in crate.all("AssessAction"):
        if not str(found.get("name", "")).strip():
            yield f"{found['@id']} has no name"


@rule("MUST", "assessments", "Every assessment has a state.")
def assessments_have_a_state(crate: Crate) -> Faults:
    for found in crate.all("AssessAction"):
        if not _state(found):
            yield f"{found['@id']} has no actionStatus of the profile"


@rule("MUST", "assessments", "Times are RFC 3339 with an offset.")
def times_are_rfc_3339(crate: Crate) -> Faults:
    for found in [crate.run, *crate.all("AssessAction"), *crate.all("UpdateAction")]:
        for name in ("startTime", "endTime"):
            if name in found and not _is_time(found[name]):
                yield f"{name} of {found['@id']} is not a time of RFC 3339"


@rule("MUST", "assessments", "A program that assesses says for which organisation.")
def programs_have_a_provider(crate: Crate) -> Faults:
    programs = {a["@id"]: a for e in crate.all("AssessAction") for a in crate.follow(e, "agent")}
    for name, found in programs.items():
        if "SoftwareApplication" in kinds(found) and not crate.follow(found, "provider"):
            yield f"the program {name} names no provider"


@rule("SHOULD", "assessments", "Every assessment names who made it.")
def assessments_have_an_agent(crate: Crate) -> Faults:
    for found in crate.all("AssessAction"):
        if not _is(found, "SignOff") and not crate.follow(found, "agent"):
            yield f"{found['@id']} names no agent"


@rule("SHOULD", "assessments", "Every assessment has the root among its objects.")
def assessments_are_of_the_root(crate: Crate) -> Faults:
    for found in crate.all("AssessAction"):
        if not _is(found, "CheckValue") and "./" not in ids(found.get("object")):
            yield f"{found['@id']} does not have the root as object"


@rule("SHOULD", "assessments", "A completed assessment says when it ended.")
def completed_assessments_have_an_end(crate: Crate) -> Faults:
    for found in crate.all("AssessAction"):
        if not _is(found, "SignOff") and _state(found) == "Completed" and "endTime" not in found:
            yield f"{found['@id']} is completed and has no endTime"


# ---- phase by phase -------------------------------------------------------------------------------------------------
@rule("SHOULD", "check", "There is a check of the checksums.")
def there_is_a_check(crate: Crate) -> Faults:
    if not crate.phases("CheckValue"):
        yield "there is no CheckValue"


@rule("SHOULD", "check", "The check's object is the root.")
def check_is_of_the_root(crate: Crate) -> Faults:
    for found in crate.phases("CheckValue"):
        if "./" not in ids(found.get("object")):
            yield f"{found['@id']} is not a check of the root"


@rule("SHOULD", "check", "The check's instrument is a term for a hash algorithm.")
def check_names_its_algorithm(crate: Crate) -> Faults:
    for found in crate.phases("CheckValue"):
        if not any("DefinedTerm" in kinds(e) for e in crate.follow(found, "instrument")):
            yield f"{found['@id']} names no hash algorithm"


@rule("SHOULD", "validation", "There is a validation.")
def there_is_a_validation(crate: Crate) -> Faults:
    if not crate.phases("ValidationCheck"):
        yield "there is no ValidationCheck"


@rule("SHOULD", "validation", "The validation's instrument is this profile.")
def validation_is_against_the_profile(crate: Crate) -> Faults:
    for found in crate.phases("ValidationCheck"):
        if PROFILE not in ids(found.get("instrument")):
            yield f"{found['@id']} is not against {PROFILE}"


@rule("SHOULD", "sign-off", "There is a sign-off.")
def there_is_a_sign_off(crate: Crate) -> Faults:
    if not crate.phases("SignOff"):
        yield "there is no SignOff"


@rule("SHOULD", "sign-off", "A sign-off names who gave it.")
def sign_off_has_an_agent(crate: Crate) -> Faults:
    for found in crate.phases("SignOff"):
        if not crate.follow(found, "agent"):
            yield f"{found['@id']} names no agent"


@rule("SHOULD", "sign-off", "A sign-off says when it was given.")
def sign_off_has_an_end(crate: Crate) -> Faults:
    for found in crate.phases("SignOff"):
        if _state(found) in ("Completed", "Failed") and "endTime" not in found:
            yield f"{found['@id']} has no endTime"


@rule("SHOULD", "sign-off", "A sign-off's instrument is a policy.")
def sign_off_names_its_policy(crate: Crate) -> Faults:
    for found in crate.phases("SignOff"):
        if not any("CreativeWork" in kinds(e) for e in crate.follow(found, "instrument")):
            yield f"{found['@id']} names no policy"


@rule("SHOULD", "sign-off", "A sign-off is of the workflow.")
def sign_off_is_of_the_workflow(crate: Crate) -> Faults:
    for found in crate.phases("SignOff"):
        if crate.workflow and crate.workflow not in ids(found.get("object")):
            yield f"{found['@id']} is not of the workflow"


@rule("SHOULD", "sign-off", "A sign-off is of the responsible project.")
def sign_off_is_of_the_project(crate: Crate) -> Faults:
    projects = {e["@id"] for e in crate.follow(crate.root, "sourceOrganization") if "Project" in kinds(e)}
    for found in crate.phases("SignOff") if projects else ():
        if not projects & set(ids(found.get("object"))):
            yield f"{found['@id']} is not of the responsible project"


@rule("SHOULD", "disclosure", "There is a disclosure check.")
def there_is_a_disclosure_check(crate: Crate) -> Faults:
    if not crate.phases("DisclosureCheck"):
        yield "there is no DisclosureCheck"


@rule("MUST", "disclosure", "What failed the disclosure check is not in the crate.")
def refused_outputs_are_not_in_the_crate(crate: Crate) -> Faults:
    if any(_state(e) == "Failed" for e in crate.phases("DisclosureCheck")) and ids(crate.run.get("result")):
        yield "the disclosure check failed and the crate holds results"


# ---- publication ----------------------------------------------------------------------------------------------------
@rule("SHOULD", "publication", "The root says when it was published.")
def root_has_a_date(crate: Crate) -> Faults:
    if not _is_time(crate.root.get("datePublished")):
        yield "the root has no datePublished of RFC 3339"


@rule("SHOULD", "publication", "The root has a licence.")
def root_has_a_licence(crate: Crate) -> Faults:
    if not ids(crate.root.get("license")):
        yield "the root has no license"


@rule("SHOULD", "publication", "The root has a publisher.")
def root_has_a_publisher(crate: Crate) -> Faults:
    if not crate.follow(crate.root, "publisher"):
        yield "the root has no publisher"


# ---- the bag --------------------------------------------------------------------------------------------------------
@rule("MUST", "bag", "bagit.txt declares BagIt 1.0 or later.")
def bag_is_declared(crate: Crate) -> Faults:
    if crate.bag is not None and not re.search(r"BagIt-Version: [1-9]\d*\.\d+", _text(crate, "bagit.txt")):
        yield "bagit.txt does not declare BagIt 1.0 or later"


@rule("MUST", "bag", "The payload manifest has SHA-512 checksums, and they are right.")
def bag_manifest_is_right(crate: Crate) -> Faults:
    if crate.bag is None:
        return
    if not (crate.bag / "manifest-sha512.txt").is_file():
        yield "manifest-sha512.txt is missing"
        return
    from fivefold.records.bag import payload_faults

    yield from payload_faults(crate.bag)


@rule("SHOULD", "bag", "The tag manifest has SHA-512 checksums, and they are right.")
def bag_tags_are_right(crate: Crate) -> Faults:
    if crate.bag is None:
        return
    if not (crate.bag / "tagmanifest-sha512.txt").is_file():
        yield "tagmanifest-sha512.txt is missing"
        return
    from fivefold.records.bag import tag_faults

    yield from tag_faults(crate.bag)


@rule("MUST", "bag", "bag-info.txt has an External-Identifier.")
def bag_has_an_identifier(crate: Crate) -> Faults:
    if crate.bag is not None and not re.search(r"(?m)^External-Identifier: \S", _text(crate, "bag-info.txt")):
        yield "bag-info.txt has no External-Identifier"


@rule("SHOULD", "bag", "The External-Identifier is a UUID URN.")
def bag_identifier_is_a_uuid(crate: Crate) -> Faults:
    found = re.search(r"(?m)^External-Identifier: (\S+)", _text(crate, "bag-info.txt"))
    if found and not re.fullmatch(f"urn:uuid:{UUID}", found[1]):
        yield "the External-Identifier is not a UUID URN"


def _agents(crate: Crate) -> list[Entity]:
    return [e for e in crate.follow(crate.run, "agent") if "Person" in kinds(e)]


def _is(entity: Entity, phase: str) -> bool:
    return f"https://w3id.org/shp#{phase}" in ids(entity.get("additionalType"))


def _state(entity: Entity) -> str:
    return STATES.get(str(entity.get("actionStatus")), "")


def _is_time(text: object) -> bool:
    """A date and time with its offset (RFC 3339, section 5.6)."""
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
    if not isinstance(text, str) or not re.fullmatch(shape, text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _text(crate: Crate, name: str) -> str:
    try:
        return (crate.bag / name).read_text("utf-8") if crate.bag is not None else ""
    except (OSError, UnicodeDecodeError):
        return ""
