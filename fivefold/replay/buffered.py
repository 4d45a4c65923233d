"""Buffered questions: who may be in a buffer, and what an update that was computed from older weights counts for.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba. Federated learning with buffered asynchronous aggregation. AISTATS 2022,
algorithm 1 (FedBuff). One yield is one buffer: a secure sum among K sites, each of which answers with the update that it has
computed from the weights of this version or an earlier one. Coordinator and sites read these rules alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np

from fivefold.errors import FivefoldError
from fivefold.plugins import method
from fivefold.protocol.questions import Array, Buffer
from fivefold.replay.cursor import setting_of
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Analysis, Study


def staleness_weight(staleness: int) -> float:
    """s(τ) = 1/√(1 + τ), of an update that is τ versions old (section 3 of the paper): 1 for a fresh one, never more. Raises
    `ValueError` for an update of a version to come."""
    if staleness < 0:
        raise ValueError("an update cannot be younger than the weights")
    return 1.0 / math.sqrt(1.0 + staleness)


def weighed(answer: Mapping[str, Array], buffer: Buffer, staleness: int) -> dict[str, Array]:
    """The answer as it goes into the buffer: weighed at the site, before anything is clipped or masked. A weight is at most 1,
    so that no site changes the sum by more than without it, and the sensitivity stays what it was."""
    weight = staleness_weight(staleness)
    return {name: np.asarray(value) * weight if name in buffer.weighed else value for name, value in answer.items()}


def survivors_needed(study: Study, buffer: Buffer) -> int:
    """Sites that a buffer's sum has to hold: max(t, minimum_sites, c + h), and with differential privacy K - d, since the
    noise is shared among the members of the buffer."""
    return thresholds(study, buffer.size).survivors_needed


def buffers_of(study: Study, analyses: Iterable[Analysis]) -> tuple[Buffer, ...]:
    """The buffers that these analyses (none: the study's own) will ask for."""
    found = []
    for analysis in tuple(analyses) or study.analyses:
        with suppress(FivefoldError):  # an analysis that cannot be read ends by itself, in its turn
            spec = method(analysis.method).parse(analysis, setting_of(study))
            buffer = getattr(spec, "buffer", None)
            if isinstance(buffer, Buffer):
                found.append(buffer)
    return tuple(found)
