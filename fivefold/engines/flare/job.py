"""A FLARE job folder for a signed study, written by hand: no nvflare is needed to make one.

    NAME/meta.json                          which sites, how many must be there
    NAME/app/config/config_fed_server.json  the controller's name
    NAME/app/config/config_fed_client.json  the executor's name
    NAME/app/config/study.signed.json       the signed study, byte for byte

There is no `app/custom`: FLARE looks the classes up in what each party has installed, so a job cannot ship code, and a site may
turn FLARE's 'bring your own code' off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fivefold.errors import RunFolderTaken, SourceNotFound
from fivefold.records.files import write_file
from fivefold.study.digest import SignedStudy

SHELL = "fivefold.engines.flare.shell"
CLASSES = (f"{SHELL}.StudyController", f"{SHELL}.SiteExecutor")
RESOURCES = "resources.json"
LOG_STREAMER, LOG_STREAMING = "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer", "allow_log_streaming"
"""FLARE's component that sends a site's log of each job to the server, and the party's word on it."""
TASK = "fivefold"
STUDY_FILE = "study.signed.json"
POLL_SECONDS = 0.05
"""FLARE's clients ask the server for work; its default of 2 s would be the whole cost of a small round."""
DEADLINE_SECONDS = 600


def write_job(found: SignedStudy, folder: Path, *, deadline: int = DEADLINE_SECONDS) -> Path:
    """Write the job of a signed study into `folder`, which must be empty or new. Returns the folder.

    `deadline` is the seconds after which a site that has not answered is absent from a trip. Raises `RunFolderTaken`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderTaken(f"{folder} already holds files", help="Name a folder that does not exist yet.")
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    sites = [site.name for site in found.study.sites]
    _json(folder / "meta.json", _meta(found, sites))
    _json(config / "config_fed_server.json", _server(deadline))
    _json(config / "config_fed_client.json", _client())
    write_file(config / STUDY_FILE, found.to_bytes())
    return folder


def write_allow_list(local: Path) -> Path:
    """Write `resources.json` into a FLARE party's `local` folder: of all classes it may load Fivefold's two alone, and no job's
    log is sent to the server. (For that, FLARE adds a class of its own to each job, which then may not be loaded either.)
    Whatever else is there, or in the `.default` of FLARE's provisioning, stays."""
    target = local / RESOURCES
    found: dict[str, Any] = {"format_version": 2}
    for file in (target, local / f"{RESOURCES}.default"):
        if file.exists():
            found = json.loads(file.read_text("utf-8"))
            break
    if "components" in found:
        found["components"] = [c for c in found["components"] if c.get("path") != LOG_STREAMER]
    local.mkdir(parents=True, exist_ok=True)
    _json(target, found | {"class_allow_list": list(CLASSES), LOG_STREAMING: False})
    return target


def site_folder(client: str, environment: Mapping[str, str]) -> Path:
    """The folder of this site, from the site's own environment. Raises `SourceNotFound`."""
    if "FIVEFOLD_SITE_FOLDER" in environment:
        return Path(environment["FIVEFOLD_SITE_FOLDER"])
    if "FIVEFOLD_SITES" in environment and "/" not in client and client not in ("", ".", ".."):
        return Path(environment["FIVEFOLD_SITES"]) / client
    raise SourceNotFound(
        "this site has not said where its Fivefold folder lies",
        help="Set FIVEFOLD_SITE_FOLDER in the environment of FLARE's client.",
    )


def _meta(found: SignedStudy, sites: list[str]) -> dict[str, Any]:
    return {
        "name": f"fivefold-{found.digest[:12]}",
        "resource_spec": {},
        "deploy_map": {"app": ["server", *sites]},
        "min_clients": found.study.privacy.minimum_sites,
        "mandatory_clients": [],
    }


def _server(deadline: int) -> dict[str, Any]:
    controller = {"id": "study", "path": f"{SHELL}.StudyController", "args": {"deadline": deadline}}
    return {
        "format_version": 2,
        "server": {"heart_beat_timeout": 600, "task_request_interval": POLL_SECONDS},
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [],
        "workflows": [controller],
    }


def _client() -> dict[str, Any]:
    executor = {"tasks": [TASK], "executor": {"path": f"{SHELL}.SiteExecutor", "args": {}}}
    return {
        "format_version": 2,
        "default_task_fetch_interval": POLL_SECONDS,
        "executors": [executor],
        "task_result_filters": [],
        "task_data_filters": [],
        "components": [],
    }


def _json(path: Path, value: Any) -> None:
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())
