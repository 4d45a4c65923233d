"""YAML with the line of every key, so that an error can name it: the border that study, policy and mapping files share.

Made for files that strangers write: no tags, no anchors (an alias can blow a small file up without end), no key twice, at
most 1 MiB.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fivefold.errors import FivefoldError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1 << 20
TAGS = frozenset({"str", "int", "float", "bool", "null", "timestamp", "seq", "map"})
Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """What a file says (`data`: plain Python values) and where: `lines[("peers", 0, "site")]`, from 1."""

    name: str
    data: Any
    lines: Mapping[Where, int]

    def line(self, where: Where) -> int:
        """The line of a place, or of the nearest place around it."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read(path: Path, *, invalid: type[FivefoldError], missing: type[FivefoldError]) -> Document:
    """The document in a file. Raises `missing` where there is none, `invalid` for what is not such YAML."""
    return parse(raw(path, missing=missing), path.name, invalid=invalid)


def raw(path: Path, *, missing: type[FivefoldError]) -> bytes:
    """A file's bytes, no more than `parse` takes and one. Raises `missing`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise missing(f"{path.name} cannot be read in {path.parent}") from error


def parse(content: bytes, name: str, *, invalid: type[FivefoldError]) -> Document:
    """The document in bytes (UTF-8)."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(content) > MAX_BYTES:
        raise invalid(f"{name} is larger than 1 MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(
            f"{name} is not UTF-8 text (line {content[: error.start].count(10) + 1})", help="Save the file as UTF-8."
        ) from error
    yaml = YAML(typ="safe", pure=True)
    lines: dict[Where, int] = {}
    try:
        root = yaml.compose(text)
        data = None if root is None else _value(root, (), yaml, lines, name, invalid)
    except MarkedYAMLError as error:
        at = error.problem_mark.line + 1 if error.problem_mark else 1
        raise invalid(f"{name}, line {at}: this is not YAML: {error.problem or 'unreadable'}") from error
    except (YAMLError, ValueError) as error:
        raise invalid(f"{name} is not YAML: it holds a character or value that YAML does not allow") from error
    except RecursionError as error:
        raise invalid(f"{name} is nested too deeply") from error
    return Document(name, data, lines)


def validated(model: type[Model], document: Document, *, invalid: type[FivefoldError], example: str = "") -> Model:
    """The document as a pydantic model. Raises `invalid` with the line, the key and what to write instead, for the first
    fault."""
    from pydantic import ValidationError

    if not isinstance(document.data, dict):
        raise invalid(f"{document.name}, line 1: a mapping of keys to values is expected", help=example or None)
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        sentences = faults(model, document, error)
        raise invalid(sentences[0], help="\n".join(sentences[1:]) or None) from None


def faults(model: type[BaseModel], document: Document, error: ValidationError) -> list[str]:
    """One sentence for each fault, in the order of lines."""
    found = []
    for fault in error.errors(include_url=False, include_context=True):
        where = tuple(fault["loc"])
        line = document.line(where)
        key = ".".join(str(p) for p in where) or "the file"
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(where[-1]), _known(model, where), 1)
            what = f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        elif fault["type"] == "missing":
            what = f"key {key!r} is missing"
        else:
            what = f"{key}: {_plain(fault['msg'], fault['input'])}"
        found.append((line, f"{document.name}, line {line}: {what}"))
    return [sentence for _, sentence in sorted(found)]


def _plain(said: str, given: Any) -> str:
    """Pydantic's sentence about a value, in plain words, with the value."""
    said = said.removeprefix("Value error, ").partition(", unable to")[0]
    wanted = re.sub(r"^(Input|String|Number|Value) should ", "should ", said)
    for words, plain in (("a valid integer", "a whole number"), ("a valid string", "text"), ("a valid ", "a ")):
        wanted = wanted.replace(words, plain)
    return f"{given!r} {wanted}" if wanted.startswith("should ") and isinstance(given, (str, int, float)) else wanted


def _known(model: Any, where: Where) -> list[str]:
    """The keys that a model allows at a place."""
    from typing import get_args

    for part in where[:-1]:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            kinds = [fields[part].annotation, *get_args(fields[part].annotation)]
            kinds += [inner for kind in kinds for inner in get_args(kind)]
            model = next((k for k in kinds if hasattr(k, "model_fields")), None)
    return list(getattr(model, "model_fields", {}))


def _value(node: Any, where: Where, yaml: Any, lines: dict[Where, int], name: str, invalid: type[FivefoldError]) -> Any:
    from ruamel.yaml.nodes import MappingNode, ScalarNode

    line = node.start_mark.line + 1
    lines.setdefault(where, line)
    if node.anchor is not None:
        raise invalid(
            f"{name}, line {line}: anchors and aliases (& and *) are not allowed", help="Write the value out at each place."
        )
    if str(node.tag or "").removeprefix("tag:yaml.org,2002:") not in TAGS:
        raise invalid(f"{name}, line {line}: tags (!) are not allowed", help="Write plain values.")
    if isinstance(node, ScalarNode):
        return yaml.constructor.construct_object(node)
    if not isinstance(node, MappingNode):
        return [_value(child, (*where, i), yaml, lines, name, invalid) for i, child in enumerate(node.value)]
    out: dict[Any, Any] = {}
    for key_node, child in node.value:
        if not isinstance(key_node, ScalarNode):
            raise invalid(f"{name}, line {key_node.start_mark.line + 1}: a key must be a word, not a list or mapping")
        key = _value(key_node, (*where, "?"), yaml, {}, name, invalid)
        place = (*where, key if isinstance(key, (str, int)) else str(key))
        if key in out:
            raise invalid(f"{name}, line {key_node.start_mark.line + 1}: key {key!r} is written twice")
        lines[place] = key_node.start_mark.line + 1
        out[key] = _value(child, place, yaml, lines, name, invalid)
    return out
