"""A signed Fivefold: every file of this installation is one that whoever publishes Fivefold signed, and there is no other.

The publisher writes the list with `python -m tools.sign_installation` before the package is built; it travels inside, as
`fivefold/installation.json`. A site's policy names the keys that it takes for a publisher's (`settings.signed_by`). This finds
a wrong, altered or half-installed Fivefold; whoever holds the machine could also replace Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import fivefold
from fivefold.errors import StatementInvalid
from fivefold.governance.statements import read_statement, signed

KIND = "installation"
FILE = "installation.json"
ROOT = Path(fivefold.__file__).parent
LEFT_OUT = (".pyc", ".pyo")
"""What Python itself writes beside the sources."""


@dataclass(frozen=True)
class Installation:
    """A signed list of files that fits what is installed: the version that it names, its signers (public keys, hex) and the
    SHA-256 (hex) of the list."""

    version: str
    signers: tuple[str, ...]
    identity: str


def files_in(root: Path = ROOT) -> dict[str, str]:
    """Every file of an installation but the list itself: path below the package → SHA-256 (hex)."""
    found = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in LEFT_OUT and p != root / FILE)
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def sign_files(private: bytes, root: Path = ROOT, *, version: str = fivefold.__version__) -> bytes:
    """The signed list of an installation's files, by a publisher's private key."""
    return signed(KIND, {"version": version, "files": files_in(root)}, private)


@lru_cache(maxsize=4)
def installed(root: Path = ROOT) -> Installation:
    """The installation as it was signed. Read once in a process: what was imported does not change with the file.

    Raises `StatementInvalid`: there is no list, it was altered, or a file is not what the list says.
    """
    try:
        raw = (root / FILE).read_bytes()
    except OSError as error:
        raise StatementInvalid("it came without a signed list of its files") from error
    said = read_statement(raw, FILE)
    listed, version = said.facts.get("files"), said.facts.get("version")
    if said.kind != KIND or not isinstance(listed, Mapping) or not isinstance(version, str):
        raise StatementInvalid(f"{FILE} is no list of an installation's files")
    there = files_in(root)
    wrong = sorted(p for p in {*listed, *there} if listed.get(p) != there.get(p))
    if wrong:
        what = "is gone" if wrong[0] not in there else "was changed" if wrong[0] in listed else "was added"
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise StatementInvalid(f"its file {wrong[0]} {what}{more}")
    return Installation(version, said.signers, said.digest)
