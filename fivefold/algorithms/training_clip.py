"""A clip that follows a quantile of the norms, round by round (`clip: adaptive`): what it adds to a round, and what it learns.

Andrew, Thakkar, McMahan, Ramaswamy. Differentially private learning with adaptive clipping. NeurIPS 2021, algorithm 1. The
count Σ(b - ½) of norms within the clip travels as one more number of the update, times κ = z_Δ·C/σ_b. One unit then changes the
whole by the norm S = (C² + κ²/4)^½ = C·z_Δ/z, and noise of the deviation z·S over all numbers is z_Δ·C for the update and σ_b
for the count (theorem 1). So a round costs what the study's noise multiplier z says, and the clip of the next round follows
from the aggregate alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fivefold.algorithms.cohort import Floats
from fivefold.privacy.dp.adaptive_clipping import centred_count, count_deviation, next_clip, update_multiplier
from fivefold.protocol.questions import Aggregate, Array
from fivefold.protocol.results import Figure, ResultTable

if TYPE_CHECKING:
    from fivefold.algorithms.training_loop import Frame, State
    from fivefold.algorithms.training_spec import TrainingSpec

SPAN = 1e4
"""How many times wider or narrower than at the start a clip may become."""


@dataclass(frozen=True)
class Following:
    """Which share of the units is to lie within the clip, and how fast the clip moves there (η_C of the paper)."""

    quantile: float
    rate: float


@dataclass(frozen=True)
class Joint:
    """Of one round, all public: the clip C, the factor κ of the count (0: none is asked), the L2 sensitivity S of the update
    with its count, and σ_b, the deviation of the count's noise in units."""

    clip: float
    factor: float = 0.0
    sensitivity: float = 0.0
    deviation: float = 0.0

    @property
    def more(self) -> int:
        """The numbers that the count adds to an update."""
        return 1 if self.factor else 0


def joint(frame: Frame, state: State) -> Joint:
    """What the round's question is, from the study and the aggregates so far."""
    spec = frame.spec
    private = spec.setting.differential_privacy
    if spec.following is None or private is None:
        return Joint(spec.clip, 0.0, spec.clip)
    clip, z = float(state["clips"][-1]), private.noise_multiplier
    deviation = deviation_of(z, frame.persons if private.unit == "person" else len(spec.setting.sites))
    widened = update_multiplier(z, deviation)
    return Joint(clip, clip * widened / deviation, clip * widened / z, deviation)


def deviation_of(multiplier: float, units: float) -> float:
    """σ_b: a twentieth of the units as the paper found to do, but never so small that the update's noise would grow by more
    than 15 % (σ_b = z gives z_Δ = 2z/√3)."""
    return max(count_deviation(units), multiplier)


def begun(spec: TrainingSpec, state: State) -> State:
    """The state at the start: `clips` holds every round's clip, the last one that of the round to come."""
    return state if spec.following is None else {**state, "clips": np.array([spec.clip])}


def moved(frame: Frame, before: State, after: State, total: Aggregate) -> State:
    """The state with the clip of the next round."""
    spec, now = frame.spec, joint(frame, before)
    if spec.following is None:
        return after
    units = float(frame.persons if spec.private_unit == "person" else len(total.sites))
    clip = next_clip(
        now.clip, float(total["update"][-1]) / now.factor, units, quantile=spec.following.quantile, rate=spec.following.rate,
        low=spec.clip / SPAN, high=spec.clip * SPAN,
    )  # fmt: skip
    return {**after, "clips": np.append(before["clips"], clip)}


def counted(update: Floats, norms: Floats, clip: float, factor: float) -> Array:
    """Beside the rows: the update (size,) with its count as one more number, (size + 1,); as it is where none is asked."""
    return np.append(update, factor * centred_count(norms, clip)) if factor else update


def remark(spec: TrainingSpec) -> tuple[str, ...]:
    """What an adaptive clip costs, for whoever checks or estimates a study."""
    private = spec.setting.differential_privacy
    if spec.following is None or private is None:
        return ()
    z = private.noise_multiplier
    quantile = f"the quantile {spec.following.quantile:g} of the norms"
    head = f"the clip of analysis {spec.name!r} follows {quantile}; its counts cost no further ε"
    if private.unit == "site":
        widened = update_multiplier(z, deviation_of(z, len(spec.setting.sites)))
        return (f"{head}, but the update's noise multiplier is {widened:.3g} instead of {z:g}",)
    worst = update_multiplier(z, deviation_of(z, 1))
    many = update_multiplier(z, deviation_of(z, 1000))
    return (f"{head}, but the update's noise multiplier is {many:.3g} with 1,000 persons ({worst:.3g} with few), not {z:g}",)


def table_of(spec: TrainingSpec, state: State) -> tuple[dict[str, ResultTable], list[Figure], dict[str, Any]]:
    """The clip by round, its curve, and the last round's as a fact; nothing where the clip is fixed."""
    if spec.following is None or "clips" not in state:
        return {}, [], {}
    clips = [float(c) for c in state["clips"]]
    rows = [(i, c) for i, c in enumerate(clips[:-1] or clips, 1)]
    noted = f"follows the quantile {spec.following.quantile:g} of the norms, from noisy counts that are charged"
    table = ResultTable.of("Clip by round", ("round", "clip"), rows, notes=(noted,))
    drawn = Figure("curve", "clips", f"Clip of {spec.name} by round", {"x": "round", "y": "clip"}, "round", "clip")
    return {"clips": table}, [drawn] if len(rows) > 1 else [], {"clip": rows[-1][1]}
