"""A package to a repository: only one that is whole, and whose outputs an output checker let go."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fivefold.coordinator.package_check import outer, study_of
from fivefold.coordinator.recall import why_not
from fivefold.errors import CrateInvalid, OutputHeld
from fivefold.records.bag import bag_info, require_whole, zip_bag
from fivefold.records.five_safes_rules import broken
from fivefold.records.repository_http import Server
from fivefold.records.zenodo import SERVERS, Deposit, Tell, deposit
from fivefold.study.definition import Study

TOKEN = "FIVEFOLD_ZENODO_TOKEN"
ADDRESS = "FIVEFOLD_ZENODO_URL"
SERVICE = "fivefold-zenodo"
COMPLETED = "http://schema.org/CompletedActionStatus"


def to_zenodo(
    package: Path,
    *,
    sandbox: bool,
    publish: bool,
    new_version_of: int = 0,
    communities: Sequence[str] = (),
    related: Sequence[tuple[str, str]] = (),
    tell: Tell = lambda _done, _size: None,
) -> Deposit:
    """Upload a packed crate as `CRATE.zip`, and publish it where that is asked for. `related`: pairs of relation, identifier.

    Raises `CrateInvalid` for a package that is not whole, `OutputHeld` for outputs that nobody let go, `DepositRefused`,
    `DepositInterrupted` (give the same command again).
    """
    require_publishable(package)
    mark = str(bag_info(package)["External-Identifier"])
    server = Server(os.environ.get(ADDRESS, SERVERS[sandbox]).rstrip("/"), token(), time.sleep)
    archive = zip_bag(package, package.with_name(f"{package.name}.zip"))
    found = study_of(package)
    return deposit(
        server,
        archive,
        metadata_of(found.study, found.digest, communities, related),
        mark,
        package.with_name(f"{package.name}.zenodo.json"),
        publish=publish,
        new_version_of=new_version_of,
        tell=tell,
    )


def require_publishable(package: Path) -> None:
    """Raises `CrateInvalid` or `OutputHeld` where a package may not be published."""
    require_whole(package)
    crate = outer(package)
    faults = broken(crate, "MUST")
    if faults:
        raise CrateInvalid("; ".join(faults[:5]), help="Pack the run again with `fivefold crate build RUN`.")
    recalled = why_not(package)
    if recalled:
        raise OutputHeld(recalled, help="Ask for a new release, and pack that.")
    checks = crate.phases("DisclosureCheck")
    if not checks or any(one.get("actionStatus") != COMPLETED for one in checks):
        raise OutputHeld(
            "no output checker has let the results of this package go",
            help="Ask for a release (`fivefold outputs request RUN`), and pack the run again when it is released.",
        )


def metadata_of(
    study: Study, digest: str, communities: Sequence[str] = (), related: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Zenodo's metadata of a study: title, creators with ORCID, licence, what it is related to, communities."""
    lead, licence = study.lead, study.outputs.licence
    creator = {"name": lead.name, "affiliation": lead.organisation} | ({"orcid": lead.orcid} if lead.orcid else {})
    sites = ", ".join(s.organisation or s.name for s in study.sites)
    words = [
        f"<p>{escape(study.question)}</p>",
        f"<p>Research package of a federated study over {len(study.sites)} institutions ({escape(sites)}), each of which "
        "kept its records: a Five Safes RO-Crate 0.4 in a signed BagIt bag.</p>",
        f"<p>Ethics: {escape(study.agreements.ethics)}. Study sha256:{digest}.</p>",
    ]
    open_licence = re.fullmatch(r"[A-Za-z0-9.+-]+", licence) is not None
    access = (
        {"access_right": "open", "license": licence.lower()}
        if open_licence
        else {"access_right": "restricted", "access_conditions": escape(licence or "All rights reserved")}
    )
    return {
        "title": study.title,
        "upload_type": "dataset",
        "description": "".join(words),
        "creators": [{k: v for k, v in creator.items() if v}],
        "keywords": ["federated analysis", "Five Safes", "RO-Crate"],
        "version": digest[:12],
        "related_identifiers": [{"relation": relation, "identifier": name} for relation, name in related],
        **({"communities": [{"identifier": name} for name in communities]} if communities else {}),
        **access,
    }


def token() -> str:
    """The repository's token, from the environment or else the keyring; empty where there is none. Never logged."""
    found = os.environ.get(TOKEN, "").strip()
    if found:
        return found
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return ""
    try:
        return str(keyring.get_password(SERVICE, "token") or "")
    except keyring.errors.KeyringError:
        return ""
