"""The outer Five Safes RO-Crate 0.4 (RO-Crate 1.2) of a run: who asked on whose behalf, what was checked, who signed off.

Source: Soiland-Reyes, Wheater, Giles, Goble, Quinlan, "TRE-FX Technical Documentation - Five Safes RO-Crate", 2023,
https://w3id.org/5s-crate/0.4. The profile wants a folder as main entity; so the Provenance Run Crate lies nested in `run/`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fivefold.records.crate import FORMATS
from fivefold.records.crate_names import refs, slug
from fivefold.records.five_safes_record import Package, SiteEvidence

CONTEXT = "https://w3id.org/ro/crate/1.2/context"
RO_CRATE = "https://w3id.org/ro/crate/1.2"
PROFILE = "https://w3id.org/5s-crate/0.4"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROVENANCE_CRATE = "https://w3id.org/ro/wfrun/provenance/0.5"
SHP = "https://w3id.org/shp#"
SHA512 = "https://www.iana.org/assignments/named-information#sha-512"
RUN = "run/"
SOFTWARE = "run/ro-crate-metadata.json"
"""The nested crate describes the software, with the versions of everything it needs."""
STATUS = {
    "completed": "http://schema.org/CompletedActionStatus",
    "failed": "http://schema.org/FailedActionStatus",
    "pending": "http://schema.org/PotentialActionStatus",
}
Entity = dict[str, Any]


def crate_of(package: Package) -> dict[str, Any]:
    """The JSON-LD of the outer crate. The same package gives the same value."""
    graph = [_descriptor(), _root(package), *_parts(package), *_people(package), *_phases(package), *_terms(package)]
    return {"@context": CONTEXT, "@graph": graph}


def external_identifier(run: str) -> str:
    """The request's own name, the same for every package of a run: `urn:uuid:…`."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'fivefold request {run}')}"


def execution(run: str) -> str:
    """The identifier of the action that stands for the whole run."""
    return f"#execution-{uuid.uuid5(uuid.NAMESPACE_URL, f'fivefold run {run}')}"


def _descriptor() -> Entity:
    return {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": RO_CRATE},
    }


def _root(package: Package) -> Entity:
    study = package.study
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": study.title,
        "description": f"{study.question} A governed federated study of {len(study.sites)} sites; each kept its records.",
        "identifier": external_identifier(package.run),
        "conformsTo": {"@id": PROFILE},
        "datePublished": package.built,
        "license": {"@id": _licence(package)["@id"]},
        "author": {"@id": _lead(package)},
        "publisher": {"@id": "#lead-organisation"},
        "sourceOrganization": {"@id": "#project"},
        "mainEntity": {"@id": RUN},
        "mentions": refs([execution(package.run), *(phase["@id"] for phase in _phases(package))]),
        "hasPart": refs([RUN, *map(quote, package.others)]),
    }


def _parts(package: Package) -> Iterator[Entity]:
    yield {
        "@id": RUN,
        "@type": "Dataset",
        "name": f"The run of {package.study.title}",
        "description": "A Provenance Run Crate: the signed study as workflow, every round, every result.",
        "conformsTo": refs([WORKFLOW_CRATE, PROVENANCE_CRATE]),
        "subjectOf": {"@id": f"{RUN}ro-crate-metadata.json"},
        "hasPart": refs(f"{RUN}{quote(path)}" for path in package.parts),
    }
    yield {
        "@id": f"{RUN}ro-crate-metadata.json",
        "@type": "CreativeWork",
        "name": "Description of the nested run crate",
        "encodingFormat": "application/ld+json",
    }
    for path in package.parts:
        yield {"@id": f"{RUN}{quote(path)}", "@type": "File", "name": path, "encodingFormat": _format(path)}
    for path, words in package.others.items():
        yield {"@id": quote(path), "@type": "File", "name": words, "encodingFormat": _format(path)}
    values = {
        "study-digest": ("SHA-256 of the signed study", package.digest),
        "run": ("identity of the run", package.run),
        "seed": ("seed", package.study.seed),
    }
    for name, (words, value) in values.items():
        parameter = {"@id": f"#parameter-{name}"}
        yield {"@id": f"#value-{name}", "@type": "PropertyValue", "name": words, "value": value, "exampleOfWork": parameter}
        yield {**parameter, "@type": "FormalParameter", "name": words, "additionalType": "PropertyValue"}
    yield {
        "@id": execution(package.run),
        "@type": "CreateAction",
        "name": f"Run of the study: {package.study.title}",
        "description": f"Over the {package.engine} engine; the nested crate tells every round.",
        "agent": {"@id": _lead(package)},
        "instrument": {"@id": RUN},
        "object": refs(f"#value-{name}" for name in values),
        "result": refs(f"{RUN}{quote(path)}" for path in package.parts),
        "startTime": package.started,
        "endTime": package.ended,
        "actionStatus": STATUS["completed" if package.completed else "failed"],
    }


def _people(package: Package) -> Iterator[Entity]:
    lead = package.study.lead
    yield {
        "@id": _lead(package),
        "@type": "Person",
        "name": lead.name,
        "affiliation": {"@id": "#lead-organisation"},
        "memberOf": {"@id": "#project"},
    }
    yield {
        "@id": "#lead-organisation",
        "@type": "Organization",
        "name": lead.organisation or lead.name,
        "identifier": f"ed25519:{lead.public_key}",
    }
    members = ["#lead-organisation", *(f"#site-{slug(s.name)}" for s in package.study.sites)]
    yield {
        "@id": "#project",
        "@type": "Project",
        "name": package.study.title,
        "description": package.study.agreements.purpose,
        "identifier": f"sha256:{package.digest}",
        "member": refs(members),
    }
    for site in package.study.sites:
        yield {
            "@id": f"#site-{slug(site.name)}",
            "@type": "Organization",
            "name": site.organisation or site.name,
            "alternateName": site.name,
            "identifier": f"ed25519:{site.public_key}",
        }
    yield {
        "@id": "#fivefold",
        "@type": "SoftwareApplication",
        "name": "Fivefold",
        "softwareVersion": package.software,
        "version": package.software,
        "url": {"@id": SOFTWARE},
        "provider": {"@id": "#lead-organisation"},
    }
    for said in package.sites:
        yield {
            "@id": f"#custodian-{slug(said.site)}",
            "@type": "Person",
            "name": said.custodian,
            "affiliation": {"@id": f"#site-{slug(said.site)}"},
            "identifier": f"ed25519:{said.custodian_key}",
        }
    for name in package.disclosure.by:
        yield {"@id": f"#checker-{slug(name)}", "@type": "Person", "name": name}


def _phases(package: Package) -> list[Entity]:
    """The review of the profile, phase by phase: check, validation, a sign-off of each site, disclosure, publication."""
    found = package.disclosure
    words = {"completed": "approved", "failed": "refused", "pending": "pending"}[found.status]
    disclosure = {"agent": refs(f"#checker-{slug(name)}" for name in found.by) if found.by else {"@id": "#fivefold"}}
    return [
        _assess("#check", "CheckValue", "Files of the run against their digests, and the audit log: whole", package)
        | {"instrument": {"@id": SHA512}},
        _assess("#validation", "ValidationCheck", "Validation against the Five Safes RO-Crate profile: approved", package)
        | {"instrument": {"@id": PROFILE}},
        *(_sign_off(site, package) for site in package.sites),
        _assess("#disclosure", "DisclosureCheck", f"{found.words} ({words})", package, found.status)
        | disclosure
        | ({"endTime": found.ended} if found.ended else {})
        | ({"instrument": refs(map(quote, found.files))} if found.files else {}),
        _assess("#publication", "GenerateCheckValue", "BagIt manifests of the package written", package)
        | {"@type": "UpdateAction", "instrument": {"@id": SHA512}},
    ]


def _sign_off(site: SiteEvidence, package: Package) -> Entity:
    held = not site.withdrawn
    words = "approved" if held else f"withdrawn on {site.withdrawn[:10]}"
    about = _assess(
        f"#sign-off-{slug(site.site)}",
        "SignOff",
        f"Sign-off of {site.organisation or site.site} by {site.custodian}: {words}",
        package,
        "completed" if held else "failed",
    )
    return about | {
        "description": f"Analyses {', '.join(site.analyses)}; valid until {site.expires}; data {site.commitment[:16]}….",
        "object": refs(["./", RUN, "#project"]),
        "instrument": {"@id": f"#policy-{slug(site.site)}"},
        "agent": {"@id": f"#custodian-{slug(site.site)}"},
        "endTime": site.withdrawn or site.approved,
    }


def _assess(name: str, phase: str, words: str, package: Package, status: str = "completed") -> Entity:
    return {
        "@id": name,
        "@type": "AssessAction",
        "additionalType": {"@id": f"{SHP}{phase}"},
        "name": words,
        "object": {"@id": "./"},
        "agent": {"@id": "#fivefold"},
        "actionStatus": STATUS[status],
    } | ({"endTime": package.built} if status == "completed" else {"startTime": package.built})


def _terms(package: Package) -> Iterator[Entity]:
    yield {"@id": PROFILE, "@type": "Profile", "name": "Five Safes RO-Crate profile", "version": "0.4"}
    yield {"@id": WORKFLOW_CRATE, "@type": "Profile", "name": "Workflow RO-Crate", "version": "1.0"}
    yield {"@id": PROVENANCE_CRATE, "@type": "Profile", "name": "Provenance Run Crate", "version": "0.5"}
    yield {"@id": SHA512, "@type": "DefinedTerm", "name": "sha-512 algorithm"}
    yield _licence(package)
    for site in package.sites:
        yield {
            "@id": f"#policy-{slug(site.site)}",
            "@type": "CreativeWork",
            "name": f"Policy of {site.site}, version {site.policy_version}",
            "identifier": f"sha256:{site.policy_digest}",
        }


def _licence(package: Package) -> Entity:
    licence = package.study.outputs.licence
    if re.fullmatch(r"[A-Za-z0-9.+-]+", licence):
        return {"@id": f"https://spdx.org/licenses/{licence}", "@type": "CreativeWork", "name": licence, "identifier": licence}
    return {"@id": "#licence", "@type": "CreativeWork", "name": licence or "All rights reserved"}


def _lead(package: Package) -> str:
    orcid = package.study.lead.orcid
    return f"https://orcid.org/{orcid}" if orcid else "#lead"


def _format(path: str) -> str:
    return FORMATS.get(PurePosixPath(path).suffix, "application/octet-stream")
