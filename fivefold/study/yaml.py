"""Read a study file with its dictionary: every fault at once, each with its line and what to write instead."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fivefold.errors import FivefoldError, StudyInvalid, StudyNotFound
from fivefold.study import lines
from fivefold.study.consistency import Fault, Where, faults
from fivefold.study.definition import Study
from fivefold.study.document import dictionary_of, study_of, undocument
from fivefold.study.expression_syntax import suggestion
from fivefold.study.model_code import with_sources

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

EPOCH = datetime.date(1970, 1, 1)
MOST_SHOWN = 50


@dataclass(frozen=True)
class Located:
    """A fault with its file and line (from 1)."""

    file: str
    line: int
    what: str
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.what}"


@dataclass(frozen=True)
class Reading:
    """What came of reading: the study, where its shape could be read at all, and its faults in the order of lines."""

    path: Path
    study: Study | None
    faults: tuple[Located, ...]
    documents: Mapping[str, lines.Document]

    def locate(self, found: Iterable[Fault]) -> tuple[Located, ...]:
        """Faults with file and line; those of the dictionary lie in its own file where it has one."""
        return _sorted(_located(self.documents, f) for f in found)

    def enforced(self) -> Study:
        """The study. Raises `StudyInvalid` with every fault where there are any."""
        if self.faults or self.study is None:
            raise invalid(self.faults)
        return self.study


def load(path: str | Path) -> Study:
    """The study in a file. Raises `StudyNotFound`, or `StudyInvalid` with every fault, its line and what to write instead."""
    return read(path).enforced()


def read(path: str | Path) -> Reading:
    """Read a study file and its dictionary. Raises `StudyNotFound` where a file is missing, `StudyInvalid` for what is not
    YAML."""
    path = Path(path)
    document = _document(path)
    documents = {"": document}
    data = document.data
    if not isinstance(data, dict):
        fault = Located(document.name, 1, "a study file is a mapping of keys", "Write one with `fivefold study new`.")
        return Reading(path, None, (fault,), documents)
    data, found = with_sources(data, path.parent)
    inline = data.get("dictionary")
    if isinstance(inline, str) and inline.strip():
        documents["dictionary"] = _dictionary_document(path, inline.strip(), document)
        inline = documents["dictionary"].data
    elif "dictionary" in data:
        found += [] if isinstance(inline, dict) else [Fault(("dictionary",), "this is neither a path nor a dictionary")]
    study, more = _build(data, inline, documents)
    for key, origin in documents.items():
        found += _lost_zeros(origin, path if not key else path.parent / str(data["dictionary"]).strip(), key)
    located = _sorted(_located(documents, f) for f in [*found, *more])
    return Reading(path, study, located, documents)


def from_document(value: Any, name: str = "the frozen study") -> Study:
    """The study of a parsed canonical document, checked as strictly as a file. Raises `StudyInvalid`."""
    data = undocument(value)
    documents = {"": lines.Document(name, data, {})}
    study, found = _build(data, data["dictionary"], documents)
    if found or study is None:
        raise StudyInvalid(
            f"{name}: " + "; ".join(f"{'.'.join(map(str, f.where))}: {f.what}" for f in found[:MOST_SHOWN]),
            help="Correct the study file and freeze it again.",
        )
    return study


def invalid(found: Iterable[Located]) -> StudyInvalid:
    """One error that says all faults; the first one's advice is its help."""
    found = tuple(found)
    if len(found) == 1:
        return StudyInvalid(str(found[0]), help=found[0].instead or None)
    shown = [f"  {f}" + (f" {f.instead}" if f.instead else "") for f in found[:MOST_SHOWN]]
    return StudyInvalid("\n".join([f"the study has {len(found)} faults:", *shown]))


# ---- files ----------------------------------------------------------------------------------------------------------
def _document(path: Path) -> lines.Document:
    if path.is_dir():
        raise StudyNotFound(f"{path} is a folder, not a study file", help=f"Give the file, such as {path / 'study.yaml'}.")
    if not path.exists():
        raise StudyNotFound(f"there is no study file {path}")
    return lines.read(path, invalid=StudyInvalid, missing=StudyNotFound)


def _dictionary_document(path: Path, name: str, document: lines.Document) -> lines.Document:
    beside = path.parent / name
    if not beside.is_file():
        raise StudyNotFound(
            f"{document.name}, line {document.line(('dictionary',))}: there is no dictionary {name!r} beside the study file",
            help="Write its path as seen from the study file's folder.",
        )
    return lines.read(beside, invalid=StudyInvalid, missing=StudyNotFound)


def _lost_zeros(document: lines.Document, path: Path, key: str) -> list[Fault]:
    """Codes written as 01: YAML reads the number 1, and a code would silently become another."""
    text = path.read_text(encoding="utf-8-sig").splitlines()
    found = []
    for where, line in document.lines.items():
        last = where[-1] if where else None
        if "codes" in where[-2:-1]:
            code = last
        elif "missing_codes" in where[-2:-1] and isinstance(last, int):
            code = _at(document.data, where)
        else:
            continue
        written = re.search(rf"(?<![\w.\"'])0+{code}(?![\w.\"'])", text[line - 1]) if isinstance(code, int) else None
        if written:
            place = (*((key,) if key else ()), *where)
            found.append(Fault(place, f"the code {written[0]} would lose its zero", f'Put it in quotes: "{written[0]}".'))
    return found


def _at(value: Any, where: Where) -> Any:
    for part in where:
        value = value[part]
    return value


# ---- shape ----------------------------------------------------------------------------------------------------------
def _build(data: Any, inline: Any, documents: Mapping[str, lines.Document]) -> tuple[Study | None, list[Fault]]:
    """Check both shapes, then what the parts say about each other."""
    from pydantic import ValidationError

    from fivefold.study.schema import DictionaryFile, StudyFile

    found: list[Fault] = []
    shaped: dict[str, Any] = {}
    parts: list[tuple[str, type[BaseModel], Any]] = [("study", StudyFile, data)]
    if inline is not None:
        parts.append(("dictionary", DictionaryFile, inline))
    for key, model, value in parts:
        prefix: Where = () if key == "study" else ("dictionary",)
        plain = _plain(value, prefix, found)
        if key == "study" and isinstance(plain, dict) and "dictionary" in plain:
            plain["dictionary"] = "read apart"
        try:
            shaped[key] = model.model_validate(plain)
        except ValidationError as error:
            found += _shape_faults(model, error, prefix)
            # Read on without what is wrong, so that the other faults are named in the same go.
            rest = plain
            for fault in error.errors(include_url=False):
                if fault["type"] == "extra_forbidden" or fault["loc"][:1] in OPTIONAL:
                    rest = _without(rest, tuple(fault["loc"]))
            with suppress(ValidationError):
                shaped[key] = model.model_validate(rest)
    if "study" in shaped and "dictionary" in shaped:
        try:
            study = study_of(shaped["study"], dictionary_of(shaped["dictionary"]))
        except FivefoldError as error:
            return None, [*found, Fault(("analyses",), error.message, error.hint)]
        return study, [*found, *faults(study)]
    return None, found


def _plain(value: Any, where: Where, found: list[Fault]) -> Any:
    """YAML's values as a study means them: days as text, numbers as codes, nothing that is not finite."""
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            place = (*where, key)
            if not isinstance(key, str):
                if isinstance(key, bool) or not isinstance(key, (int, float)):
                    found.append(Fault(place, f"the key {key} is not a text", "Put it in quotes."))
                key = str(key)
            if key == "missing_codes" and isinstance(item, list):
                item = [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in item]
            if key in ("minimum", "maximum") and isinstance(item, datetime.date):
                item = (item - EPOCH).days
            if isinstance(item, list) and not item and key == "codes":
                item = {}
            out[key] = _plain(item, place, found)
        return out
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v, (*where, i), found) for i, v in enumerate(value))
    if isinstance(value, datetime.datetime):
        found.append(Fault(where, "a day is expected, not a time", "Write it as 2027-12-31."))
        return value.date().isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        found.append(Fault(where, f"{value} is not a finite number", "Write a finite number, or leave the key out."))
        return 0.0
    if isinstance(value, str) or value is None or isinstance(value, (bool, int, float)):
        return value
    found.append(Fault(where, f"a {type(value).__name__} has no place here", "Write text, a number, a list or a mapping."))
    return ""


OPTIONAL = (("cohort",), ("envelope",), ("privacy",), ("outputs",), ("seed",), ("stragglers",))


def _without(value: Any, where: Where) -> Any:
    """A copy without the key at a place; of a list that holds what is wrong, nothing is kept."""
    if not isinstance(value, dict) or not where or where[0] not in value:
        return value
    rest = {k: v for k, v in value.items() if k != where[0]}
    if len(where) == 1 or not isinstance(value[where[0]], (dict, tuple)):
        return rest
    inner = value[where[0]]
    if isinstance(inner, dict):
        return value | {where[0]: _without(inner, where[1:])}
    if len(where) > 2 and isinstance(where[1], int) and where[1] < len(inner):
        changed = [_without(v, where[2:]) if i == where[1] else v for i, v in enumerate(inner)]
        return value | {where[0]: tuple(changed)}
    return rest


WANTED = {
    "string_type": "a text is expected", "int_type": "a whole number is expected", "float_type": "a number is expected",
    "tuple_type": "a list is expected", "dict_type": "a mapping is expected", "model_type": "a mapping is expected",
    "string_too_short": "a text is expected, not nothing", "finite_number": "a finite number is expected",
    "string_too_long": "the text is too long",
}  # fmt: skip
INSTEAD = {
    "string_type": "Write text, in quotes where it looks like a number.", "int_type": "Write a whole number without quotes.",
    "float_type": "Write a number without quotes.", "tuple_type": "Write a list: lines that begin with `- `.",
    "dict_type": "Write indented lines of `key: value`.", "model_type": "Write indented lines of `key: value`.",
    "string_too_short": "Write something here, or take the key out.", "string_too_long": "Shorten it.",
}  # fmt: skip


def _shape_faults(model: type[BaseModel], error: ValidationError, prefix: Where) -> list[Fault]:
    return [_shape_fault(model, dict(e), prefix) for e in error.errors(include_url=False)]


def _shape_fault(model: type[BaseModel], error: dict[str, Any], prefix: Where) -> Fault:
    """Pydantic's fault in the study's words."""
    from fivefold.study.schema import SHORT_NAME

    inner: Where = tuple(p for p in error["loc"] if p != "[key]")
    where, kind, context = (*prefix, *inner), str(error["type"]), error.get("ctx", {})
    key = str(inner[-1]) if inner else "the file"
    if kind == "extra_forbidden":
        return Fault(where, f"unknown key {key!r}", suggestion(key, _keys_at(model, inner[:-1])))
    if kind == "missing":
        return Fault(where, f"the key {key!r} is missing", f"Write `{key}: …`.")
    if kind == "literal_error":
        given, known = str(error["input"]), re.findall(r"'([^']+)'", str(context.get("expected", "")))
        return Fault(where, f"{key} cannot be {given!r}", suggestion(given, known))
    if kind == "string_pattern_mismatch":
        if key == "expires":
            return Fault(where, f"{error['input']!r} is not a day", "Write it as 2027-12-31.")
        hyphen = " - " if context.get("pattern") == SHORT_NAME else " "
        return Fault(where, f"{error['input']!r} is not a name", f"Use letters, digits, _{hyphen}and begin with a letter.")
    if kind in ("greater_than_equal", "less_than_equal"):
        return Fault(
            where,
            f"{key} is {error['input']}",
            f"Write a number {'from' if 'ge' in context else 'up to'} {next(iter(context.values()))}.",
        )
    if kind in ("too_short",):
        return Fault(where, f"{key} is empty", "Write one or more.")
    if kind == "value_error":
        return Fault(where, str(context.get("error", "this value is wrong")), "Write plain text.")
    what = WANTED.get(kind, str(error["msg"]).lower())
    given = error["input"]
    shown = "nothing" if given is None else repr(given) if isinstance(given, (str, int, float)) else f"a {_word(given)}"
    return Fault(where, f"{key}: {what}, not {shown}" if kind.endswith("_type") else f"{key}: {what}", INSTEAD.get(kind, ""))


def _keys_at(model: Any, where: Where) -> list[str]:
    """The keys that the border allows at a place."""
    for part in where:
        fields = getattr(model, "model_fields", {})
        inner = [fields[part].annotation] if part in fields else []
        while inner:
            kind = inner.pop()
            inner += get_args(kind)
            if hasattr(kind, "model_fields"):
                model = kind
    return list(getattr(model, "model_fields", {}))


def _word(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, (list, tuple)) else type(value).__name__


def _located(documents: Mapping[str, lines.Document], fault: Fault) -> Located:
    where, document = fault.where, documents[""]
    if where[:1] == ("dictionary",) and "dictionary" in documents and len(where) > 1:
        where, document = where[1:], documents["dictionary"]
    return Located(document.name, document.line(where), fault.what, fault.instead)


def _sorted(found: Iterable[Located]) -> tuple[Located, ...]:
    unique = dict.fromkeys(found)
    return tuple(sorted(unique, key=lambda f: (f.file, f.line)))
