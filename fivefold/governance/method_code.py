"""Which code a custodian approves: the files of the methods that a study names, each by its digest.

A method's files are its own module and all of `algorithms/` and `models/` that these import, read from the sources. Whatever
else changes from one Fivefold release to the next (engines, pages, commands), the approval stays; a change to one of these
files voids it, and the file is named.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import fivefold
from fivefold import plugins
from fivefold.study.definition import Study

PARTS = ("fivefold.algorithms.", "fivefold.models.")
HOME = Path(fivefold.__file__).parent.parent


def files_of_study(study: Study) -> Mapping[str, str]:
    """The files of the study's methods, those of its envelope among them: path → SHA-256 (hex)."""
    return files_of(tuple(sorted({*(a.method for a in study.analyses), *study.envelope.methods})))


@lru_cache(maxsize=64)
def files_of(methods: tuple[str, ...]) -> Mapping[str, str]:
    """As `files_of_study`, for methods by name. Read once in a process: what was imported does not change with the file."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [m for m in map(_module, methods) if m]
    while waiting:
        name = waiting.pop()
        place = None if name in seen else _source(name)
        seen.add(name)
        if place is None:
            continue
        data = place.read_bytes()
        found[name.replace(".", "/") + ".py"] = hashlib.sha256(data).hexdigest()
        waiting += _named(data)
    return MappingProxyType(dict(sorted(found.items())))


def text_of(path: str) -> bytes:
    """The bytes of a file that `files_of` names; empty where it is gone."""
    place = _source(path.removesuffix(".py").replace("/", "."))
    return b"" if place is None else place.read_bytes()


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """The files that differ, were added or taken away, each with what happened to it."""
    words = []
    for path in sorted({*before, *now}):
        if before.get(path) != now.get(path):
            words.append(f"{path} ({'new' if path not in before else 'gone' if path not in now else 'changed'})")
    return tuple(words)


def _module(method: str) -> str:
    if method in plugins.METHODS:
        return plugins.METHODS[method]
    return next((p.module for p in entry_points(group="fivefold.methods") if p.name == method), "")


def _source(module: str) -> Path | None:
    """The file of a module; its parents are not imported where they are ours."""
    if module.startswith("fivefold."):
        path = HOME.joinpath(*module.split(".")).with_suffix(".py")
        return path if path.is_file() else None
    spec = find_spec(module)
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _named(data: bytes) -> Iterator[str]:
    """Modules of methods and models that a source imports, or names in a text (as a table of lazily imported ones does)."""
    for node in ast.walk(ast.parse(data)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (n for n in (node.module, *(f"{node.module}.{a.name}" for a in node.names)) if _part(n))
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if _part(a.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _part(node.value):
            yield node.value


def _part(name: str) -> bool:
    return name.startswith(PARTS) and all(part.isidentifier() for part in name.split("."))
