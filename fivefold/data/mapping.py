"""`mapping.yaml`: how a site's own columns, units and codes become the dictionary's.

source: {kind: csv, path: patients.csv}
person: patient_no
variables:
  age: {column: AGE_M, unit: month}
  sex: {column: gender, codes: {1: male, 2: female}}
  chol: {column: chol, unit: mg/dL, missing: [0]}
  hospital: {constant: basel}
"""

from __future__ import annotations

import codecs
import hashlib
import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PrivateAttr, WithJsonSchema, model_validator

from fivefold.errors import MappingInvalid
from fivefold.study.lines import parse, raw, validated

FILE = "mapping.yaml"
OnInvalid = Literal["missing", "refuse"]
WHOLE = re.compile(r"[+-]?\d{1,15}\.0*$")


def code_text(value: Any) -> Any:
    """A code as text, however YAML read it: `1`, `1.0`, `true` and `2026-01-31` are texts here."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return canonical(repr(value))
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value


def canonical(text: str) -> str:
    """A whole number written as a decimal (`1.0`, as spreadsheets and databases write codes) becomes `1`; other text stays."""
    return str(int(float(text))) if WHOLE.match(text) else text


Code = Annotated[str, BeforeValidator(code_text), WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""A code; in the published schema, whatever YAML makes of it."""


def _short_form(schema: dict[str, Any]) -> None:
    """In the published schema: a variable is a column's name, or a mapping with one of its three sources."""
    whole = dict(schema) | {"anyOf": [{"required": [key]} for key in ("column", "constant", "absent")]}
    description = whole.pop("description", "")
    schema.clear()
    schema.update({"description": description, "anyOf": [{"type": "string"}, whole]})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CsvSource(_Frozen):
    """A text file of cells. `header`: true (the first row), or the names of the columns of a file without one."""

    kind: Literal["csv"]
    path: str = Field(min_length=1)
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    header: Literal[True] | tuple[str, ...] = True

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            known = codecs.lookup(self.encoding)
        except LookupError as error:
            raise ValueError(f"there is no encoding {self.encoding!r}; write utf-8, latin-1, cp1252 or utf-16") from error
        if not getattr(known, "_is_text_encoding", True):
            raise ValueError(f"{self.encoding!r} is not an encoding of text")
        if not self.delimiter.isascii() or self.delimiter in '"\r\n\0':
            raise ValueError("the delimiter must be one ASCII character, such as ',' ';' or '\\t'")
        if isinstance(self.header, tuple) and len(set(self.header)) != len(self.header):
            raise ValueError("two columns of the header share a name")
        return self


class ParquetSource(_Frozen):
    """A Parquet file."""

    kind: Literal["parquet"]
    path: str = Field(min_length=1)


class SqlSource(_Frozen):
    """A database by SQLAlchemy. `url_env` names the environment variable that holds its URL (so that no password stands in a
    file); `table` (with `schema_name`), or one read-only `query`."""

    kind: Literal["sql"]
    url_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    table: str | None = None
    schema_name: str | None = None
    query: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("write either `table:` or `query:`")
        if self.query is not None:
            words = self.query.strip().rstrip(";")
            if not re.match(r"(?is)(select|with)\b", words) or ";" in words:
                raise ValueError("the query must be one SELECT")
        return self


Source = Annotated[CsvSource | ParquetSource | SqlSource, Discriminator("kind")]


class EachRow(_Frozen):
    """The custodian's word that each row is another person, for data without an identifier."""

    each_row: Literal[True]


class Mapped(_Frozen):
    """One variable: a column, a constant, or `absent: true` where the site does not have it. `unit` is the column's own (the
    dictionary's if absent), `factor` multiplies where no unit converts (mmol/L of a substance); `codes` maps the site's
    codes to the dictionary's; `missing` are codes that mean 'not known' in this column; `format` is a date's (`%d.%m.%Y`;
    ISO 8601 if absent)."""

    model_config = ConfigDict(json_schema_extra=_short_form)

    column: str | None = Field(None, description="The column that holds it.", examples=["AGE_M"])
    constant: Code | None = Field(None, description="One value for all rows.", examples=["basel"])
    absent: Literal[True] | None = Field(None, description="The site does not have it: missing in all rows.")
    unit: str | None = Field(None, max_length=60, description="The column's own unit; left out: the dictionary's.")
    factor: float | None = Field(None, description="Multiplies, in place of a unit that does not convert. Not 0.")
    codes: dict[Code, Code] = Field(
        default_factory=dict, description="The site's codes to the dictionary's.", examples=[{"1": "male", "2": "female"}]
    )
    missing: tuple[Code, ...] = Field((), description="Codes that mean: not known, in this column.", examples=[[9]])
    format: str | None = Field(None, description="Of a date; ISO 8601 if left out.", examples=["%d.%m.%Y"])
    on_invalid: OnInvalid | None = Field(None, description="As for the whole file, for this variable.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _format(self) -> Self:
        if self.format is not None:
            try:
                if not re.search("%[yYxcDFG]", self.format):
                    raise ValueError
                datetime.strptime(datetime(2001, 2, 3).strftime(self.format), self.format)
            except ValueError:
                raise ValueError(f"{self.format!r} is not the format of a date; write it like %d.%m.%Y") from None
        return self

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(x is not None for x in (self.column, self.constant, self.absent)) != 1:
            raise ValueError("write one of `column:`, `constant:` and `absent: true`")
        if self.factor is not None and (self.factor == 0 or self.unit is not None):
            raise ValueError("`factor` must not be 0 and stands in place of `unit`")
        return self


class Mapping(_Frozen):
    """The whole file. `person` names the column that identifies a person."""

    source: Source = Field(description="Where the rows are.")
    person: str | EachRow = Field(description="The column that identifies a person; {each_row: true} where there is none.")
    missing: tuple[Code, ...] = Field((), description="Cells that mean: not known, in every column.", examples=[["NA", "?"]])
    on_invalid: OnInvalid = Field("missing", description="What becomes of a cell that holds no value: counted, or refused.")
    variables: dict[str, Mapped] = Field(description="The dictionary's variables, each with where it comes from.")

    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)
    _digest: str = PrivateAttr(default="")

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file's text."""
        return self._digest

    def at(self, *where: str) -> str:
        """`mapping.yaml, line 7` for an error about a key."""
        place: tuple[str | int, ...] = where
        while place and place not in self._lines:
            place = place[:-1]
        return f"{FILE}, line {self._lines.get(place, 1)}"

    def refuses(self, variable: str) -> bool:
        """Whether a value of this variable outside its type, range or codes ends the preparation."""
        mapped = self.variables.get(variable)
        return ((mapped and mapped.on_invalid) or self.on_invalid) == "refuse"

    @classmethod
    def read(cls, path: Path) -> Mapping:
        """Raises `MappingInvalid` with the line and what to write instead."""
        return cls.of(raw(path, missing=MappingInvalid))

    @classmethod
    def of(cls, text: bytes) -> Mapping:
        """The mapping in the bytes of mapping.yaml."""
        document = parse(text, FILE, invalid=MappingInvalid)
        mapping = validated(Mapping, document, invalid=MappingInvalid, example="Write `source:`, `person:` and `variables:`.")
        mapping._lines = dict(document.lines)
        mapping._digest = hashlib.sha256(text).hexdigest()
        return mapping
