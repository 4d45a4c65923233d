"""Is a run folder still what its crate says? Files against their digests, and the crate against its profile.

The profile is checked by CRS4's rocrate-validator, which lives in an environment of its own (`tools/make_env.sh crate`) and is
called as a command, offline: the JSON-LD contexts it wants are put into its cache first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fivefold.errors import CrateInvalid
from fivefold.records.files import write_file

PROFILE = "provenance-run-crate"
CONTEXTS = Path(__file__).parent / "contexts"
VARIABLE = "FIVEFOLD_ROCRATE_VALIDATOR"
MAX_SECONDS = 300
NEEDS_A_NETWORK = ("availability check is disabled", "detached package context is unavailable")
"""What RO-Crate 1.2 asks of things on the web cannot be checked offline, and a package refers to none."""


def read_crate(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The entities of a crate by identifier. Raises `CrateInvalid` if there is none."""
    path = Path(folder) / "ro-crate-metadata.json"
    try:
        graph = json.loads(path.read_bytes())["@graph"]
        return {entity["@id"]: entity for entity in graph}
    except OSError as error:
        raise CrateInvalid(
            f"{folder} holds no ro-crate-metadata.json", help="Name the folder of a run that has ended, such as runs/lung."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CrateInvalid(f"{path} is damaged: it is not the description of a crate", help="Take it from a copy.") from error


def crate_files(folder: str | Path) -> list[str]:
    """The files that a crate describes, as paths within it, in the crate's order."""
    return [unquote(name) for name, entity in read_crate(folder).items() if "File" in _types(entity)]


def write_metadata(folder: Path, value: Mapping[str, Any]) -> None:
    """Write a crate's JSON-LD as its `ro-crate-metadata.json`."""
    write_file(folder / "ro-crate-metadata.json", json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def changed_files(folder: str | Path) -> list[str]:
    """A sentence for each file that is missing or no longer has the digest written in the crate."""
    return list(_changed(Path(folder)))


def _changed(folder: Path) -> Iterator[str]:
    for name, entity in read_crate(folder).items():
        if "File" not in _types(entity):
            continue
        path = folder / unquote(name)
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"{name} lies outside the crate"
        elif not path.is_file():
            yield f"{name} is missing"
        elif "sha256" in entity and hashlib.sha256(path.read_bytes()).hexdigest() != entity["sha256"]:
            yield f"{name} was changed since the crate was written"


def _types(entity: Mapping[str, Any]) -> Sequence[str]:
    kinds = entity.get("@type", ())
    return [kinds] if isinstance(kinds, str) else list(kinds)


def validator() -> Path | None:
    """The command rocrate-validator: named by FIVEFOLD_ROCRATE_VALIDATOR, in `.venv-crate` here or beside this environment,
    or on the PATH; None if it is nowhere."""
    named = os.environ.get(VARIABLE)
    places = [Path(named)] if named else []
    places += [base / ".venv-crate" / "bin" / "rocrate-validator" for base in (Path.cwd(), Path(sys.prefix).parent)]
    found = next((place for place in places if place.is_file()), None) or shutil.which("rocrate-validator")
    return Path(found) if found else None


def profile_faults(folder: str | Path, command: Path, severity: str = "required", profile: str = PROFILE) -> list[str]:
    """What rocrate-validator finds against a profile, offline: one sentence each, none if it accepts.

    `severity` is `required` or `recommended`; the profile is Provenance Run Crate 0.5 unless another is named. Raises
    `CrateInvalid` if the validator itself cannot work.
    """
    read_crate(folder)
    with tempfile.TemporaryDirectory(prefix="fivefold-crate-") as place:
        cache, report = Path(place) / "contexts", Path(place) / "report.json"
        python = _interpreter(command)
        contexts = [str(path) for path in sorted(CONTEXTS.glob("*.json"))]
        _run([python, str(CONTEXTS / "seed.py"), str(cache), *contexts], "its cache could not be prepared")
        words = [str(command), "-y", "--disable-color", "validate", "--offline", "--cache-path", str(cache), "--no-paging"]
        words += ["-p", profile, "-l", severity, "-f", "json", "-o", str(report), str(folder)]
        said = _run(words, "it did not run", (0, 1))
        try:
            found = json.loads(report.read_bytes())
        except (OSError, ValueError) as error:
            raise CrateInvalid(f"rocrate-validator gave no report: {said[-300:]}", help=_again(command)) from error
    faults = [_fault(issue) for issue in found["issues"]]
    for skipped in found.get("skipped_check_details", ()):
        if not any(words in skipped["message"] for words in NEEDS_A_NETWORK):
            faults.append(f"not checked: {skipped['name']} ({skipped['message']})")
    if not found["passed"] and not faults:
        faults.append("rocrate-validator does not accept the crate and does not say why")
    return faults


def _fault(issue: dict[str, Any]) -> str:
    where = issue.get("violatingEntity") or issue.get("violatingProperty") or ""
    return f"{issue['message']} [{issue['check']['identifier']}]" + (f" at {where}" if where else "")


def _run(words: list[str], failure: str, accepted: tuple[int, ...] = (0,)) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CrateInvalid(f"rocrate-validator is of no use: {failure}", help=_again(Path(words[0]))) from error
    if done.returncode not in accepted:
        raise CrateInvalid(
            f"rocrate-validator is of no use: {failure}: {done.stderr[-300:].strip()}", help=_again(Path(words[0]))
        )
    return done.stdout + done.stderr


def _interpreter(command: Path) -> str:
    """The Python of the environment in which the validator is installed: what its first line names."""
    with command.open("rb") as file:
        first = file.readline(512).decode(errors="replace").strip()
    beside = command.resolve().parent / "python"
    named = first[2:].split()[0] if first.startswith("#!") else ""
    return named if Path(named).is_file() and "python" in named else str(beside)


def _again(command: Path) -> str:
    return f"Make its environment anew: remove the one of {command} and run `sh tools/make_env.sh crate`."
