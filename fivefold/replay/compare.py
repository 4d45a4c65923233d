"""Is the question that was sent the one that follows from the study?

Bytes for integers and names, a relative 1e-9 for floats: solvers differ in the last bits between CPU kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fivefold.protocol.questions import Field, Gather, Relay, Sum

TOLERANCE = 1e-9


def described(question: Sum | Gather | Relay | tuple[Sum, ...]) -> Any:
    """A question as a value that travels: step identities, fields, arguments and what it needs permitted."""
    if isinstance(question, tuple):
        return tuple(described(q) for q in question)
    if isinstance(question, Relay):
        return {
            "kind": "relay",
            "step": question.step.identity,
            "arguments": dict(question.arguments),
            "parties": question.parties,
        }
    value: dict[str, Any] = {
        "kind": "sum" if isinstance(question, Sum) else "gather",
        "step": question.step.identity,
        "fields": tuple(_field(f) for f in question.fields),
        "arguments": dict(question.arguments),
    }
    if isinstance(question, Gather):
        return value | {"sites": question.sites}
    buffer = {} if question.buffer is None else {"buffer": (question.buffer.size, question.buffer.weighed)}
    return value | {"needs": question.needs} | buffer


def _field(f: Field) -> tuple[Any, ...]:
    own = () if f.own is None else ((f.own.steps, f.own.sampling, f.own.clip),)
    return (f.name, f.kind, float(f.bound), f.shape, f.sensitivity, *own)


def same(derived: Any, sent: Any) -> bool:
    """True where the two values agree: exactly, but floats may differ by 1e-9 of the larger (of an array's largest)."""
    if isinstance(derived, np.ndarray) or isinstance(sent, np.ndarray):
        return _same_array(derived, sent)
    if isinstance(derived, Mapping):
        return isinstance(sent, Mapping) and list(derived) == list(sent) and all(same(derived[k], sent[k]) for k in derived)
    if isinstance(derived, (list, tuple)):
        return isinstance(sent, (list, tuple)) and len(derived) == len(sent) and all(map(same, derived, sent))
    if isinstance(derived, float) and isinstance(sent, float):
        return (
            derived == sent
            or abs(derived - sent) <= TOLERANCE * max(abs(derived), abs(sent))
            or (derived != derived and sent != sent)
        )
    return type(derived) is type(sent) and bool(derived == sent)


def _same_array(derived: Any, sent: Any) -> bool:
    if not (isinstance(derived, np.ndarray) and isinstance(sent, np.ndarray)):
        return False
    if derived.shape != sent.shape or derived.dtype.kind != sent.dtype.kind:
        return False
    if derived.dtype.kind != "f":
        return bool(np.array_equal(derived, sent))
    holes = np.isnan(derived)
    if not np.array_equal(holes, np.isnan(sent)):
        return False
    a, b = derived[~holes], sent[~holes]
    largest = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    if not np.isfinite(largest):
        return bool(np.array_equal(a, b))
    return bool(np.all(np.abs(a - b) <= TOLERANCE * largest))
