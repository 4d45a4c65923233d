"""Gathered questions: single sites' replies, side by side in the study's order. Coordinator and sites read them alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fivefold.privacy.fixed_point import ring_for, unpack, width
from fivefold.privacy.secagg.ring import from_bytes
from fivefold.protocol.questions import Array
from fivefold.replay.cursor import Asked, Outcome


def elements(asked: Asked, vector: bytes) -> Array:
    """One reply as ring elements. Raises `FivefoldError` for another length."""
    return from_bytes(vector, width(asked.fields), ring_for(asked.fields))


def side_by_side(asked: Asked, vector: Array, sites: int, answered: Sequence[str], dropped: tuple[str, ...]) -> Outcome:
    """Replies one after the other → for each field an array of shape (answers, *field shape), in the order of `answered`.
    Raises `ProtocolViolation` for a number beyond its field's bound."""
    size = width(asked.fields)
    each = [unpack(vector[i * size : (i + 1) * size], asked.fields, sites, 1) for i in range(len(answered))]
    totals = {f.name: np.stack([one[f.name] for one in each]) for f in asked.fields}
    return Outcome(asked.split(totals), tuple(answered), dropped)
