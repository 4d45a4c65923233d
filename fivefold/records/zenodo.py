"""A research package to Zenodo: draft, metadata, upload with checksum, and publication only where that is asked for.

Source: Zenodo's REST API, https://developers.zenodo.org (deposit, bucket files, actions publish and newversion). What was done
stands in a small state file beside the package (never the token), and is compared with what the server says before each step:
after a cut at any place the same command goes on where it stopped, and nothing is made twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fivefold.errors import DepositInterrupted, DepositRefused
from fivefold.records.files import write_file
from fivefold.records.repository_http import Server, ask

SERVERS = {False: "https://zenodo.org/api", True: "https://sandbox.zenodo.org/api"}
BLOCK = 1 << 20
DEPOSITS = "/deposit/depositions"

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Deposit:
    """A record at the repository: its number, its page, its DOI (reserved until it is published)."""

    number: int
    page: str
    doi: str
    published: bool


@dataclass(frozen=True)
class State:
    """What was begun, as the state file holds it. `mark` is the package's own name, by which a draft is found again."""

    server: str
    mark: str
    md5: str
    number: int = 0
    new_version_of: int = 0


def deposit(
    server: Server,
    package: Path,
    metadata: Mapping[str, Any],
    mark: str,
    state: Path,
    *,
    publish: bool,
    new_version_of: int = 0,
    tell: Tell = lambda _done, _size: None,
) -> Deposit:
    """Bring a file to a draft of its own, or to a new version of a record; publish it where `publish` says so.

    `metadata` is Zenodo's; `mark` is written into it as an identifier. `tell` hears the bytes sent and the size.

    Raises `DepositRefused` (token, rights, metadata, a state or checksum that is not right), `DepositInterrupted`.
    """
    size, md5 = package.stat().st_size, _md5(package)
    begun = _state(state, State(server.base, mark, md5, new_version_of=new_version_of))
    record = _draft(server, begun, state)
    if record.get("submitted") is True:
        return _deposit(record)
    number = int(record["id"])
    _upload(server, record, package, size, md5, tell)
    marked = dict(metadata) | {
        "related_identifiers": [
            *metadata.get("related_identifiers", ()),
            {"identifier": mark, "relation": "isAlternateIdentifier"},
        ]
    }
    record = ask(server, "PUT", f"{DEPOSITS}/{number}", value={"metadata": marked})
    return _deposit(_published(server, number) if publish else record)


# ---- the draft ------------------------------------------------------------------------------------------------------
def _draft(server: Server, begun: State, state: Path) -> Mapping[str, Any]:
    """The record of this package: the one begun before, one that was made before a cut, or a new one."""
    if begun.number:
        return _checked(ask(server, "GET", f"{DEPOSITS}/{begun.number}"))
    write_file(state, _json(begun))
    found = (
        _new_version(server, begun.new_version_of)
        if begun.new_version_of
        else _found(server, begun.mark) or _new(server, begun)
    )
    write_file(state, _json(State(**asdict(begun) | {"number": int(found["id"])})))
    return found


def _new(server: Server, begun: State) -> Mapping[str, Any]:
    """A new draft that carries the package's name from its first moment on."""
    value = {"metadata": {"related_identifiers": [{"identifier": begun.mark, "relation": "isAlternateIdentifier"}]}}
    return _checked(ask(server, "POST", DEPOSITS, value=value, again=False))


def _found(server: Server, mark: str) -> Mapping[str, Any] | None:
    """The draft that an earlier attempt made, if its answer was lost on the way."""
    drafts = ask(server, "GET", f"{DEPOSITS}?status=draft&sort=mostrecent&size=100")
    for draft in drafts if isinstance(drafts, list) else ():
        named = draft.get("metadata", {}).get("related_identifiers", ())
        if any(one.get("identifier") == mark for one in named):
            return _checked(draft)
    return None


def _new_version(server: Server, earlier: int) -> Mapping[str, Any]:
    """The draft of a new version; the one that there is already, if an answer was lost. Its files are those of the earlier
    version, and are taken away."""
    before = _checked(ask(server, "GET", f"{DEPOSITS}/{earlier}"))
    if before.get("submitted") is not True:
        raise DepositRefused(f"record {earlier} is not published, so it has no new version", help="Name a published record.")
    draft = _number(before.get("links", {}).get("latest_draft", ""))
    if draft in (0, earlier):
        answer = ask(server, "POST", f"{DEPOSITS}/{earlier}/actions/newversion", again=False)
        draft = _number(answer.get("links", {}).get("latest_draft", ""))
    record = _checked(ask(server, "GET", f"{DEPOSITS}/{draft}"))
    for file in record.get("files", ()):
        ask(server, "DELETE", f"{DEPOSITS}/{draft}/files/{quote(str(file['id']), safe='')}")
    return record


# ---- the file -------------------------------------------------------------------------------------------------------
def _upload(server: Server, record: Mapping[str, Any], package: Path, size: int, md5: str, tell: Tell) -> None:
    """Send the file, unless the record has it already with this checksum."""
    if any(f.get("filename") == package.name and _plain_md5(f.get("checksum")) == md5 for f in record.get("files", ())):
        tell(size, size)
        return
    bucket = str(record.get("links", {}).get("bucket", ""))
    answer = ask(server, "PUT", f"{bucket}/{quote(package.name)}", body=lambda: _Counted(package, size, tell), size=size)
    if not isinstance(answer, Mapping) or _plain_md5(answer.get("checksum")) != md5:
        raise DepositInterrupted(
            "what arrived at the repository has another checksum than the package",
            help="Give the same command again: the file is sent anew, and nothing is published before it is right.",
        )


class _Counted:
    """A file that tells how far it was read."""

    def __init__(self, path: Path, size: int, tell: Tell) -> None:
        self._file = path.open("rb")
        self._size, self._tell, self._done = size, tell, 0

    def read(self, amount: int = -1, /) -> bytes:
        data = self._file.read(BLOCK if amount < 0 else min(amount, BLOCK))
        self._done += len(data)
        self._tell(self._done, self._size)
        return data

    def close(self) -> None:
        self._file.close()


# ---- publication ----------------------------------------------------------------------------------------------------
def _published(server: Server, number: int) -> Mapping[str, Any]:
    """Publish; where the answer is lost, look whether it is done."""
    try:
        ask(server, "POST", f"{DEPOSITS}/{number}/actions/publish", again=False)
    except DepositInterrupted:
        record = _checked(ask(server, "GET", f"{DEPOSITS}/{number}"))
        if record.get("submitted") is not True:
            raise
        return record
    return _checked(ask(server, "GET", f"{DEPOSITS}/{number}"))


def _deposit(record: Mapping[str, Any]) -> Deposit:
    links, metadata = record.get("links", {}), record.get("metadata", {})
    done = record.get("submitted") is True
    doi = record.get("doi") or metadata.get("doi") or metadata.get("prereserve_doi", {}).get("doi", "")
    page = links.get("record_html") if done else links.get("html")
    return Deposit(int(record["id"]), str(page or links.get("html", "")), str(doi), done)


# ---- the state file -------------------------------------------------------------------------------------------------
def _state(path: Path, fresh: State) -> State:
    """What was begun with this very package at this server, or `fresh`. Raises `DepositRefused` for a damaged file."""
    try:
        kept = State(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError, TypeError) as error:
        raise DepositRefused(
            f"{path.name} is damaged", help="Look for the draft on the repository's page, then remove the file."
        ) from error
    return kept if asdict(kept) | {"number": 0} == asdict(fresh) else fresh


def _json(state: State) -> bytes:
    return json.dumps(asdict(state), indent=2).encode() + b"\n"


def _checked(record: Any) -> Mapping[str, Any]:
    if not isinstance(record, Mapping) or not isinstance(record.get("id"), int):
        raise DepositRefused("the repository's answer is not a record", help="Look at the repository's status page.")
    return record


def _number(link: str) -> int:
    tail = str(link).rstrip("/").rsplit("/", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def _plain_md5(text: Any) -> str:
    return str(text or "").removeprefix("md5:").lower()


def _md5(path: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)  # what the repository reports; integrity itself rests on the bag's SHA-512
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()
