"""A FLARE client's own workspace, read: may a job bring code, which classes may it name, does the site's log leave?

Fivefold cannot switch this off from inside a job; whoever looks after FLARE's client can, in two files of its folder `local`:
`authorization.json` (the right `byoc`) and `resources.json` (the allow list of classes). Where they are not there, FLARE reads
those of its provisioning, `.default`. No nvflare is needed to look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fivefold.engines.flare.job import CLASSES, LOG_STREAMER, LOG_STREAMING, RESOURCES
from fivefold.site.doctor import Check

ANY = "*"
PAGE = "docs/how-to/run-under-flare.md says how."


def examined(workspace: Path) -> Iterator[Check]:
    """`workspace`: the folder with FLARE's `startup` and `local`."""
    local = workspace / "local"
    if not local.is_dir():
        then = "Name the folder of FLARE's client, with `startup` and `local` in it."
        yield Check("FLARE workspace", "fault", f"{workspace} has no folder `local`", then)
        return
    yield _installed(local)
    yield _own_code(local)
    yield _classes(local)
    yield _logs(local)


def _installed(local: Path) -> Check:
    """The shell that FLARE loads is this installation's: no other lies on the path that FLARE's client puts before it."""
    name = "FLARE shell"
    shadow = local / "custom" / "fivefold"
    if shadow.exists():
        return Check(name, "fault", f"another Fivefold lies at {shadow}, and FLARE loads that one", "Remove it.")
    try:
        found = version("nvflare")
    except PackageNotFoundError:
        then = "Run this with the Python that starts FLARE's client, and install Fivefold there."
        return Check(name, "warning", "there is no nvflare beside this Fivefold: FLARE's client may load another", then)
    return Check(name, "ok", f"this site's own, beside nvflare {found}")


def _own_code(local: Path) -> Check:
    """Nobody's jobs may bring code."""
    name = "FLARE byoc"
    it = _read(local, "authorization.json")
    roles = it.get("permissions") if it is not None else None
    if not isinstance(roles, dict) or not roles:
        return Check(name, "fault", f"{local} has no readable authorization.json: nobody knows who may bring code", PAGE)
    may = sorted(role for role, rights in roles.items() if not _denied(rights))
    if may:
        then = 'Write `"byoc": "none"` for each role in local/authorization.json, and list the rights of a role that has "any".'
        return Check(name, "fault", f"jobs of {', '.join(may)} may bring their own code, past every gate", then)
    return Check(name, "ok", "no job may bring its own code")


def _denied(rights: Any) -> bool:
    """A role without the right `byoc`. What is written for the role as a whole, or for `*`, holds for every right."""
    if isinstance(rights, dict):
        named = {" ".join(str(right).lower().split()): who for right, who in rights.items()}
        rights = named.get(ANY) or named.get("byoc", "none")
    conditions = rights if isinstance(rights, list) else [rights]
    return all(str(one).strip().lower() == "none" for one in conditions)


def _classes(local: Path) -> Check:
    """The site's half of the shell may be loaded, and nothing else."""
    name, wanted = "FLARE classes", CLASSES[1]
    it = _read(local, RESOURCES) or {}
    listed = it.get("class_allow_list")
    then = f'Write `"class_allow_list": ["{wanted}"]` into local/resources.json.'
    if not isinstance(listed, list):
        return Check(name, "fault", "no class_allow_list: FLARE admits its own classes, and not Fivefold's", then)
    prefixes = [str(one) for one in listed]
    if ANY in prefixes or it.get("class_list_enforcement_mode", "enforce") != "enforce":
        return Check(name, "fault", "a job may load any class that is installed here", then)
    if not any(wanted == one or wanted.startswith(one if one.endswith(".") else f"{one}.") for one in prefixes):
        return Check(name, "fault", f"{wanted} may not be loaded", then)
    others = sorted(set(prefixes) - set(CLASSES))
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        return Check(name, "warning", f"jobs may load other classes too: {shown}", then)
    return Check(name, "ok", "of all classes a job may load Fivefold's alone")


def _logs(local: Path) -> Check:
    """The site's log of a job stays at the site. What FLARE provisions sends it, by a class of its own added to every job."""
    name = "FLARE logs"
    it = _read(local, RESOURCES) or {}
    components = it.get("components")
    added = any(isinstance(c, dict) and c.get("path") == LOG_STREAMER for c in components or ())
    then = f'Take {LOG_STREAMER} out of "components" in local/{RESOURCES}, and write `"{LOG_STREAMING}": false`.'
    if added:
        return Check(name, "fault", "FLARE sends this site's log to the server, by a class that no study may load", then)
    if it.get(LOG_STREAMING, True) is not False:
        return Check(name, "warning", f"{RESOURCES} does not forbid that a job sends this site's log to the server", then)
    return Check(name, "ok", "no job sends this site's log to the server")


def _read(local: Path, name: str) -> dict[str, Any] | None:
    """The file that FLARE would read; None where there is none, or it is no JSON object."""
    for file in (local / name, local / f"{name}.default"):
        if file.exists():
            try:
                it = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError):
                return None
            return it if isinstance(it, dict) else None
    return None
