"""A run folder as a research package: Provenance Run Crate 0.5 (RO-Crate 1.1), written by the rocrate library.

Source: Leo, Crusoe, Rodríguez-Navas et al., "Recording provenance of workflow runs with RO-Crate", PLoS ONE 19(9), 2024.

The study file is the workflow. One action stands for the whole run, one for what each site did, one for each analysis' adding
up and solving; an organising action of the engine ties each to its step in the study. The crate lists files that tell the
result; journal and keys are not among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fivefold.errors import CrateInvalid
from fivefold.records import workflow_description as cwl
from fivefold.records.crate_names import (
    analysis_action,
    analysis_step,
    lead_id,
    licence,
    main_id,
    method_id,
    refs,
    site_action,
    site_id,
    site_name,
    slug,
)
from fivefold.records.files import write_file
from fivefold.records.preview import preview
from fivefold.records.provenance import RunRecord, SiteRecord

METADATA = "ro-crate-metadata.json"
PREVIEW = "ro-crate-preview.html"
VERSION = "1.1"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
STATUS = {
    "completed": "http://schema.org/CompletedActionStatus",
    "failed": "http://schema.org/FailedActionStatus",
    "stopped": "http://schema.org/FailedActionStatus",
}
FORMATS = {
    ".cwl": "application/cwl",
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".head": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
GROWING = {
    "audit.jsonl": "The coordinator's audit log of the run, chained and signed; `fivefold audit verify audit.jsonl` checks it.",
    "audit.jsonl.head": "The signed head of the audit log, by which a cut-off end is found.",
}
FOLDERS = {
    "tables/": ("Tables", "Every table of every analysis as CSV; an empty cell was withheld or is undefined."),
    "plots/": ("Figures", "Figures drawn from the tables, as SVG and PNG."),
}
Entity = dict[str, Any]


def write_crate(folder: str | Path, record: RunRecord) -> None:
    """Describe a run folder: `ro-crate-metadata.json` and `ro-crate-preview.html`. The study file must lie in it.

    Raises `CrateInvalid` if the study file is missing or a path of this machine would be told, `StorageFull`.
    """
    folder = Path(folder)
    if not (folder / record.study_file).is_file():
        raise CrateInvalid(
            f"the run folder does not hold the study file {record.study_file}", help="Copy the study file into it."
        )
    write_file(folder / cwl.FILE, cwl.workflow_of(record.title))
    metadata = json.dumps(crate_of(folder, record), indent=2, ensure_ascii=False).encode() + b"\n"
    page = preview(folder, record).encode()
    for place in {str(folder.absolute()), str(folder.resolve())}:
        if len(place) > 1 and (place.encode() in metadata or place.encode() in page):
            raise CrateInvalid("the crate would tell where the run folder lies on this machine")
    write_file(folder / PREVIEW, page)
    write_file(folder / METADATA, metadata)


def crate_of(folder: Path, record: RunRecord) -> dict[str, Any]:
    """The JSON-LD of a run folder. The same folder and record give the same value."""
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version=VERSION)
    crate.metadata.extra_contexts.append(TERMS)
    crate.metadata["conformsTo"] = refs([f"https://w3id.org/ro/crate/{VERSION}", WORKFLOW_CRATE])
    files = list(_files(folder, record))
    for path in FOLDERS:
        inside = [f for f in files if f.startswith(path)]
        if inside:
            name, words = FOLDERS[path]
            crate.add_dataset(dest_path=path, properties={"name": name, "description": words, "hasPart": refs(inside)})
    for path in files:
        crate.add_file(dest_path=path, properties=_file(folder, path, record))
    if cwl.FILE in files:
        description = _description(record)
        crate.update_jsonld({"@id": cwl.FILE} | description).properties()["@type"] = description["@type"]
    workflow = _workflow(record, files)
    crate.update_jsonld({"@id": main_id(record)} | workflow).properties()["@type"] = workflow["@type"]
    for entity in _context(record, files):
        crate.add_jsonld(dict(entity))
    for name, value in _root(record).items():
        crate.root_dataset[name] = value
    graph: dict[str, Any] = crate.metadata.generate()
    return graph


def _root(record: RunRecord) -> Entity:
    return {
        "name": record.title,
        "description": f"{record.question} A federated run of {len(record.sites)} sites; each kept its records.",
        "datePublished": record.ended,
        "license": {"@id": licence(record)["@id"]},
        "author": {"@id": lead_id(record)},
        "publisher": {"@id": "#lead-organisation"},
        "conformsTo": refs(PROFILES),
        "mainEntity": {"@id": main_id(record)},
        "mentions": refs(["#run", *(site_action(s) for s in record.sites), *(analysis_action(a) for a in record.analyses)]),
    }


def _workflow(record: RunRecord, files: list[str]) -> Entity:
    """The study file as the workflow: its steps are that sites answer, then each analysis."""
    tools = ["#site-node", *dict.fromkeys(method_id(a) for a in record.analyses)]
    return {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": record.title,
        "description": record.question,
        "version": record.study_digest[:12],
        "identifier": f"sha256:{record.study_digest}",
        "programmingLanguage": {"@id": "#study-language"},
        "hasPart": refs(tools),
        "step": refs(["#step-sites", *(analysis_step(a) for a in record.analyses)]),
        "input": refs(f"#parameter-{name}" for name in _settings(record)),
        "output": refs(f"#parameter-{slug(path)}" for path in _outputs(files)),
    } | ({"subjectOf": {"@id": cwl.FILE}} if cwl.FILE in files else {})


def _description(record: RunRecord) -> Entity:
    return {
        "@type": ["File", "SoftwareSourceCode", "HowTo"],
        "name": "The run over site folders on one machine, in CWL",
        "version": record.software["fivefold"],
        "programmingLanguage": {"@id": cwl.LANGUAGE},
    }


def _context(record: RunRecord, files: list[str]) -> Iterator[Entity]:
    for iri, (name, version) in PROFILES.items():
        yield {"@id": iri, "@type": "CreativeWork", "name": name, "version": version}
    yield {
        "@id": PREVIEW,
        "@type": "CreativeWork",
        "name": "Preview of this run",
        "about": {"@id": "./"},
        "encodingFormat": "text/html",
    }
    yield licence(record)
    yield {"@id": lead_id(record), "@type": "Person", "name": record.lead.name, "affiliation": {"@id": "#lead-organisation"}}
    yield {"@id": "#lead-organisation", "@type": "Organization", "name": record.lead.organisation or record.lead.name}
    for site in record.sites:
        yield _organisation(site)
    yield {
        "@id": "#study-language",
        "@type": "ComputerLanguage",
        "name": "Fivefold study file",
        "version": record.software["fivefold"],
    }
    if cwl.FILE in files:
        yield {
            "@id": cwl.LANGUAGE,
            "@type": "ComputerLanguage",
            "name": "Common Workflow Language",
            "alternateName": "CWL",
            "identifier": "https://w3id.org/cwl/v1.2/",
            "url": "https://www.commonwl.org/",
            "version": "1.2",
        }
    yield from _tools(record)
    yield from _parameters(record, files)
    yield from _steps(record)
    yield from _actions(record, files)


def _tools(record: RunRecord) -> Iterator[Entity]:
    own = record.software["fivefold"]
    yield _software("#engine", f"Fivefold, engine {record.engine}", own) | {
        "softwareRequirements": refs(f"#software-{slug(name)}" for name in record.software),
        "description": "Carries the questions to the sites and masked answers back; it sees no site's answer.",
    }
    yield _software("#site-node", "Fivefold site node", own) | {
        "description": "Checks signature, approval and policy, derives the question itself, sums beside the rows, masks."
    }
    for name, version in record.software.items():
        yield _software(f"#software-{slug(name)}", name, version)
    seen: set[str] = set()
    for analysis in record.analyses:
        if method_id(analysis) not in seen:
            seen.add(method_id(analysis))
            words = f"{analysis.title or analysis.method}. {analysis.paper}".strip()
            yield _software(method_id(analysis), f"Fivefold method {analysis.method}", own) | {"description": words}


def _parameters(record: RunRecord, files: list[str]) -> Iterator[Entity]:
    for name, (words, value) in _settings(record).items():
        parameter, given = f"#parameter-{name}", f"#value-{name}"
        yield {"@id": parameter, "@type": "FormalParameter", "name": words, "additionalType": "PropertyValue"} | {
            "workExample": {"@id": given}
        }
        yield {"@id": given, "@type": "PropertyValue", "name": words, "value": value, "exampleOfWork": {"@id": parameter}}
    for path in _outputs(files):
        kind = "Dataset" if path.endswith("/") else "File"
        yield {
            "@id": f"#parameter-{slug(path)}",
            "@type": "FormalParameter",
            "name": path.rstrip("/"),
            "additionalType": kind,
            "workExample": {"@id": path},
        }


def _steps(record: RunRecord) -> Iterator[Entity]:
    yield {
        "@id": "#step-sites",
        "@type": "HowToStep",
        "name": "Each site answers with masked sums over its own rows",
        "position": 1,
        "workExample": {"@id": "#site-node"},
    }
    for position, analysis in enumerate(record.analyses, 2):
        words = f"Analysis {analysis.name}: {analysis.method}" + (f", {analysis.formula}" if analysis.formula else "")
        yield {
            "@id": analysis_step(analysis),
            "@type": "HowToStep",
            "name": words,
            "position": position,
            "workExample": {"@id": method_id(analysis)},
        }


def _actions(record: RunRecord, files: list[str]) -> Iterator[Entity]:
    inputs = [main_id(record), *(f"#value-{name}" for name in _settings(record))]
    results = [path for path in files if path != record.study_file and not path.startswith("variations/")]
    yield _action("#run", record, f"Run of the study: {record.title}", main_id(record), lead_id(record), record.status) | {
        "description": _sentence(record),
        "object": refs(inputs),
        "result": refs(results),
    }
    for site in record.sites:
        answered, dropped = record.rounds_of(site.name)
        took_part = f"#rounds-{slug(site.name)}"
        status = "completed" if answered else "failed"
        words = f"Answered in {answered} rounds and dropped in {dropped}. Its rows stayed with it; masked sums left."
        yield _action(site_action(site), record, f"{site_name(site)} answers", "#site-node", site_id(site), status) | {
            "description": words,
            "object": {"@id": main_id(record)},
            "result": {"@id": took_part},
        }
        yield {"@id": took_part, "@type": "PropertyValue", "name": f"rounds answered by {site.name}", "value": answered}
    for analysis in record.analyses:
        asked = [f"{analysis_action(analysis)}-round-{r.number}" for r in analysis.rounds]
        done = "completed" if analysis.files or record.status == "completed" else record.status
        agent = "#lead-organisation"
        yield (
            _action(
                analysis_action(analysis), record, f"Adding up and solving: {analysis.name}", method_id(analysis), agent, done
            )
            | {
                "description": f"{len(analysis.rounds)} rounds of {analysis.method}, from totals over the sites alone.",
                "object": refs([main_id(record), *asked]),
            }
            | ({"result": refs(analysis.files)} if analysis.files else {})
        )
        for one, name in zip(analysis.rounds, asked, strict=True):
            yield {
                "@id": name,
                "@type": "PropertyValue",
                "name": f"{analysis.name}, round {one.number}: {', '.join(one.questions)}",
                "value": f"answered: {', '.join(one.answered) or 'none'}; dropped: {', '.join(one.dropped) or 'none'}",
            }
    controls = [(site_action(s), "#step-sites") for s in record.sites]
    controls += [(analysis_action(a), analysis_step(a)) for a in record.analyses]
    for action, step in controls:
        yield {
            "@id": f"#control-{action[1:]}",
            "@type": "ControlAction",
            "name": f"Orchestration of {action[1:]}",
            "instrument": {"@id": step},
            "object": {"@id": action},
        }
    yield {
        "@id": "#orchestration",
        "@type": "OrganizeAction",
        "name": f"Orchestration of the run by the {record.engine} engine",
        "agent": {"@id": "#lead-organisation"},
        "instrument": {"@id": "#engine"},
        "object": refs(f"#control-{action[1:]}" for action, _ in controls),
        "result": {"@id": "#run"},
        "startTime": _time(record.started),
        "endTime": _time(record.ended),
    }


def _action(name: str, record: RunRecord, words: str, instrument: str, agent: str, status: str) -> Entity:
    """The literal IRI as actionStatus is what the profile's checks accept."""
    failed = {} if status == "completed" else {"error": record.error or status}
    return {
        "@id": name,
        "@type": "CreateAction",
        "name": words,
        "instrument": {"@id": instrument},
        "agent": {"@id": agent},
        "startTime": _time(record.started),
        "endTime": _time(record.ended),
        "actionStatus": STATUS[status],
    } | failed


def _settings(record: RunRecord) -> dict[str, tuple[str, Any]]:
    """What the run was given besides the study file: parameter id → (name, value)."""
    given: dict[str, tuple[str, Any]] = {
        "study-digest": ("SHA-256 of the study", record.study_digest),
        "dictionary": (f"SHA-256 of the dictionary {record.dictionary} {record.dictionary_version}", record.dictionary_digest),
        "seed": ("seed", record.seed),
        "run": ("identity of the run", record.run),
    }
    if record.ethics:
        given["ethics"] = ("ethics reference", record.ethics)
    if record.purpose:
        given["purpose"] = ("purpose", record.purpose)
    for name, value in record.privacy.items():
        given[f"privacy-{slug(name)}"] = (f"privacy: {name.replace('_', ' ')}", "none" if value is None else value)
    return given


def _files(folder: Path, record: RunRecord) -> Iterator[str]:
    """The study file and whatever of the results is there; never the journal, keys or state."""
    yield record.study_file
    wanted = ["result.json", cwl.FILE, "tables/*.csv", "plots/*.svg", "plots/*.png", "variations/*.json", *GROWING]
    found = {path.relative_to(folder).as_posix() for pattern in wanted for path in folder.glob(pattern) if path.is_file()}
    yield from sorted(found - {record.study_file})


def _file(folder: Path, path: str, record: RunRecord) -> Entity:
    about: Entity = {"name": path, "encodingFormat": FORMATS.get(Path(path).suffix, "application/octet-stream")}
    if path in _outputs([path]):
        about["exampleOfWork"] = {"@id": f"#parameter-{slug(path)}"}
    if path.startswith("variations/"):
        about["description"] = "A variation of the study within its envelope, signed by the lead."
    if path in GROWING:  # it grows after the crate is written, so size and digest would be stale
        return about | {"description": GROWING[path]}
    data = (folder / path).read_bytes()
    analysis = next((a.name for a in record.analyses if path in a.files), None)
    if analysis is not None:
        about["description"] = f"{'Figure' if path.startswith('plots/') else 'Table'} of the analysis {analysis}."
    return about | {"contentSize": str(len(data)), "sha256": hashlib.sha256(data).hexdigest()}


def _outputs(files: Iterable[str]) -> list[str]:
    return [path for path in files if path in ("result.json", "audit.jsonl")]


def _organisation(site: SiteRecord) -> Entity:
    about = {"@id": site_id(site), "@type": "Organization", "name": site_name(site), "alternateName": site.name}
    return about | ({"identifier": f"ed25519:{site.public_key}"} if site.public_key else {})


def _sentence(record: RunRecord) -> str:
    rounds = sum(len(a.rounds) for a in record.analyses)
    where = "all sites played on one machine" if record.rehearsal else f"over the {record.engine} engine"
    end = "" if record.status == "completed" else f" It {record.status}{': ' + record.error if record.error else ''}."
    return f"{len(record.analyses)} analyses in {rounds} rounds over {len(record.sites)} sites, {where}.{end}"


def _software(identity: str, name: str, version: str) -> Entity:
    return {"@id": identity, "@type": "SoftwareApplication", "name": name, "softwareVersion": version}


def _time(text: str) -> str:
    """RFC 3339 with the offset in digits: the profile's checks know no `Z`."""
    return text.replace("Z", "+00:00")
