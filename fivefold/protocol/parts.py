"""What a message is made of. Hostile input: what its parts may hold, by the words of their annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from fivefold.errors import MessageMalformed
from fivefold.protocol.encoding import decode, encode

LIMIT = 1 << 53
"""Rounds, attempts and lengths stay below this."""


def _names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, str) for v in value) and len(set(value)) == len(value)


CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "str": lambda v: isinstance(v, str),
    "bytes": lambda v: isinstance(v, bytes),
    "bool": lambda v: isinstance(v, bool),
    "int": lambda v: type(v) is int and 0 <= v < LIMIT,
    "Names": _names,
    "Blobs": lambda v: isinstance(v, tuple) and all(isinstance(b, bytes) for b in v),
    "Parcels": lambda v: isinstance(v, Mapping) and all(isinstance(b, bytes) for b in v.values()),
}


def parts_of(value: Any, form: Mapping[str, str], what: str) -> dict[str, Any]:
    """The parts of a decoded mapping, `form` giving each one's kind (a key of `CHECKS`). Raises `MessageMalformed` where one
    is missing, too many, or of another type or range."""
    if not isinstance(value, Mapping) or value.keys() != form.keys():
        raise MessageMalformed(f"a message ({what}) lacks a part or has one too many")
    for name, part in value.items():
        if not CHECKS[form[name]](part):
            raise MessageMalformed(f"the part {name} of a message ({what}) is of another type or range")
    return dict(value)


@dataclass(frozen=True)
class Message:
    """A dataclass whose parts travel under their names; what each may hold follows from its annotation."""

    kind: ClassVar[str]

    def encode(self) -> bytes:
        return encode({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises `MessageMalformed`."""
        return cls(**parts_of(decode(data), {f.name: str(f.type) for f in fields(cls)}, cls.kind))
