"""What a site has computed for a buffer, until one takes it.

A site computes from the weights of one version, while others fill buffers and the version moves on. Its answer waits here, in
memory alone; when it goes into a buffer it is weighed down by its age, before anything else happens to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fivefold.errors import ProtocolViolation
from fivefold.governance.policy import Policy, needed
from fivefold.protocol.questions import Array, Buffer
from fivefold.replay.buffered import buffers_of, survivors_needed, weighed
from fivefold.replay.cursor import Asked
from fivefold.replay.plan import Plan
from fivefold.study.definition import Study


@dataclass(frozen=True)
class Held:
    """An answer, computed from the weights of a version of an analysis."""

    analysis: str
    version: int
    answer: Mapping[str, Array] = field(repr=False)

    def serves(self, asked: Asked) -> bool:
        return self.analysis == asked.analysis.name and self.version <= asked.version


def taken(held: Held | None, asked: Asked, buffer: Buffer) -> tuple[dict[str, Array], int]:
    """What goes into the buffer that is asked for, and from which version it is. Raises `ProtocolViolation` where nothing was
    computed: it is asked to compute first."""
    if held is None or not held.serves(asked):
        raise ProtocolViolation("a buffer asks for an update, and none was computed here", rule="nothing_computed")
    return weighed(held.answer, buffer, asked.version - held.version), held.version


def members(study: Study, policy: Policy, asked: Asked) -> tuple[int, int] | None:
    """The fewest and the most sites in this buffer, the stricter of study and policy; None where it is none."""
    buffer = asked.buffer
    if buffer is None:
        return None
    return max(survivors_needed(study, buffer), needed(policy, study, buffer.size)), buffer.size


def smallest(study: Study, policy: Policy, plan: Plan) -> int | None:
    """The fewest sites in any buffer of this run; None where it has none."""
    sizes = [max(survivors_needed(study, b), needed(policy, study, b.size)) for b in buffers_of(study, plan.analyses)]
    return min(sizes, default=None)
