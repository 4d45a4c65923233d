"""How good a model is, from sums alone: loss, accuracy, the area under the ROC curve with its bounds, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.training_spec import TrainingSpec
from fivefold.algorithms.training_steps import WORST
from fivefold.protocol.questions import Array, Field

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """An evaluation after `round` rounds. None where a measure has no meaning or is withheld; `scores` is (2, bins) or None."""

    round: int
    rows: int | None
    loss: float | None
    accuracy: float | None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    scores: Floats | None = None


def fields(spec: TrainingSpec) -> tuple[Field, ...]:
    """The fields of `training.evaluate` (or, for differential privacy of persons, of `training.evaluate_persons`)."""
    most = float(spec.setting.max_rows_per_site)
    if spec.private_unit:
        scores = Field("scores", "cell", most, (2, spec.bins or 10), 1.0)
        return (scores,) if spec.task == "binary" else (Field("right", "cell", most, (2,), 1.0),)
    out = [Field("persons", "persons", most), Field("rows", "count", most), Field("loss", "real", most * WORST[spec.task])]
    if spec.task != "regression":
        out.append(Field("right", "count", most))
    if spec.task == "binary":
        out.append(Field("outcome", "cell", most, (2,)))
        # Two lines and not one table: then no cell is withheld only because its neighbour with the other outcome is small.
        out += [Field(f"scores_{w}", "cell", most, (spec.bins,)) for w in ("without", "with") if spec.bins]
    return tuple(out)


def measured(spec: TrainingSpec, total: Mapping[str, Array], round: int) -> Measured:
    """What the sums of an evaluation say."""
    if spec.private_unit:
        return _noisy(spec, total, round)
    rows = int(total["rows"])
    loss = float(total["loss"]) / max(rows, 1)
    accuracy = int(total["right"]) / max(rows, 1) if "right" in total else None
    if "scores_with" not in total:
        return Measured(round, rows, loss, accuracy)
    scores = np.array([total["scores_without"], total["scores_with"]], dtype=np.float64)
    low, middle, high = auc_bounds(scores, np.asarray(total["outcome"], dtype=np.float64))
    return Measured(round, rows, loss, accuracy, middle, low, high, scores)


def _noisy(spec: TrainingSpec, total: Mapping[str, Array], round: int) -> Measured:
    """The same from noisy counts, where negative ones count as none; no bounds, since these would not hold the noise."""
    if spec.task != "binary":
        wrong, right = np.maximum(np.nan_to_num(np.asarray(total["right"], dtype=np.float64)), 0.0)
        return Measured(round, None, None, float(right / max(wrong + right, 1.0)))
    scores = np.maximum(np.nan_to_num(np.asarray(total["scores"], dtype=np.float64)), 0.0)
    bins = scores.shape[1]
    middle = (np.arange(bins) + 0.5) / bins
    persons = max(float(scores.sum()), 1.0)
    right = scores[0, middle < 0.5].sum() + scores[1, middle >= 0.5].sum()
    loss = -(scores[0] @ np.log(1 - middle) + scores[1] @ np.log(middle)) / persons
    _, auc, _ = auc_bounds(scores, scores.sum(axis=1))
    return Measured(round, None, float(loss), float(right / persons), auc, scores=scores)


def auc_bounds(scores: Floats, outcome: Floats) -> tuple[float | None, float | None, float | None]:
    """The least, a middle and the largest area under the ROC curve that a histogram admits.

    `scores` (2, bins) counts persons without and with the outcome by score, NaN where withheld; `outcome` (2,) are their
    numbers. Within a bin the order is unknown: pairs there count 0, half, or 1 (Hanley and McNeil, Radiology 1982). Persons in
    withheld cells lie, at worst, all in the least or most favourable of them. None where an outcome is absent or withheld.
    """
    if np.isnan(outcome).any() or (outcome <= 0).any():
        return None, None, None
    worst, even, best = (_filled(scores, outcome, how) for how in ("worst", "even", "best"))
    return _area(worst, 0.0), _area(even, 0.5), _area(best, 1.0)


def _filled(scores: Floats, outcome: Floats, how: str) -> Floats:
    """The histogram with the persons of its withheld cells put somewhere."""
    out = np.nan_to_num(scores)
    for kind in (0, 1):
        places = np.flatnonzero(np.isnan(scores[kind]))
        left = outcome[kind] - out[kind].sum()
        if not len(places) or left <= 0:
            continue
        if how == "even":
            out[kind, places] = left / len(places)
        else:
            upward = (kind == 1) == (how == "best")
            out[kind, places[-1 if upward else 0]] = left
    return out


def _area(scores: Floats, ties: float) -> float:
    below = np.cumsum(scores[0]) - scores[0]
    pairs = float(scores[1] @ below + ties * (scores[1] @ scores[0]))
    return pairs / float(scores[0].sum() * scores[1].sum())


def calibration(scores: Floats) -> list[tuple[float, float, float | None, float | None]]:
    """Of each bin: its middle, upper edge, persons, and the share of them with the outcome; None where withheld or empty."""
    bins = scores.shape[1]
    out: list[tuple[float, float, float | None, float | None]] = []
    for i in range(bins):
        n = float(scores[:, i].sum())
        shown = not np.isnan(n)
        out.append(((i + 0.5) / bins, (i + 1) / bins, n if shown else None, scores[1, i] / n if shown and n > 0 else None))
    return out


def better(history: Sequence[Measured]) -> int:
    """The index of the best evaluation, the first of equals: the least loss, or (where that is withheld) the best accuracy."""
    worth = [m.loss if m.loss is not None else -(m.accuracy or 0.0) for m in history]
    return int(np.argmin(worth))
