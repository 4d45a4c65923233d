"""The result of a training: its curve, the weights, coefficients of a linear model, calibration where there are two classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fivefold.algorithms.cohort import Floats, Watch
from fivefold.algorithms.design import transform
from fivefold.algorithms.training_clip import table_of
from fivefold.algorithms.training_metrics import Measured, better, calibration
from fivefold.algorithms.training_spec import MOST_LISTED, class_names, column_names
from fivefold.models.model import named
from fivefold.protocol.results import Figure, Result, ResultTable

if TYPE_CHECKING:
    from fivefold.algorithms.training_loop import Frame, State


def result_of(frame: Frame, state: State, done: int, history: Sequence[Measured], watch: Watch) -> Result:
    """Tables `rounds`, `weights`, `coefficients`, `calibration`; figures of the first and the last."""
    spec, weights = frame.spec, np.asarray(state["weights"], dtype=np.float64)
    tables: dict[str, ResultTable] = {}
    figures: list[Figure] = []
    final = _final(frame, history, done)
    if history:
        tables["rounds"], figures = _curve(frame, history)
    if spec.model.kind in ("linear", "logistic", "softmax") and not spec.personal:
        tables["coefficients"] = _coefficients(frame, weights)
    tables["weights"], tables["scaling"] = _weights(frame, weights), _scaling(frame)
    if final is not None and final.scores is not None:
        tables["calibration"], drawn = _calibration(frame, final)
        figures.append(drawn)
    clips, curves, clip = table_of(spec, state)
    tables, figures = tables | clips, figures + curves
    facts: dict[str, Any] = frame.found.as_facts() if frame.found is not None else {}
    if spec.private_unit == "person":
        facts["persons"] = frame.persons
    facts |= clip | {"training_rounds": done, "weights": len(weights), "weights_sha256": digest(weights)}
    if final is not None:
        measures = {"loss": final.loss, "accuracy": final.accuracy, "auc": final.auc}
        measures |= {"auc_low": final.auc_low, "auc_high": final.auc_high}
        facts |= {name: value for name, value in measures.items() if value is not None}
        if spec.task == "regression" and final.loss is not None:
            facts["root_mean_squared_error"] = float(np.sqrt(2 * final.loss)) * frame.unit[1]
    notes = [*watch.notes()]
    if done < spec.rounds:
        why = "it was asked to stop" if watch.stop else f"{spec.patience} evaluations in a row did not lower the loss"
        kept = "" if watch.stop else "; the weights are those of the best evaluation"
        notes.append(f"training ended after {done} of {spec.rounds} rounds, since {why}{kept}")
    if spec.holdout and history:
        notes.append(f"evaluated on {spec.holdout:.0%} of the persons, who were kept out of the training")
    elif history:
        notes.append("evaluated on the rows that it was trained on: figures for new persons will be worse")
    return Result(
        method="",
        tables=tables,
        facts=facts,
        sites=watch.last,
        dropped=watch.dropped,
        figures=tuple(figures),
        notes=tuple(notes),
        weights=weights,
    )


def _final(frame: Frame, history: Sequence[Measured], done: int) -> Measured | None:
    """The evaluation of the weights that are given, if there was one."""
    from fivefold.algorithms.training_loop import exhausted

    if exhausted(frame.spec, history):
        return history[better(history)]
    return history[-1] if history and history[-1].round == done else None


def digest(weights: Floats) -> str:
    """SHA-256 of the weights as little-endian float64, in order."""
    return hashlib.sha256(np.asarray(weights, dtype="<f8").tobytes()).hexdigest()


def _curve(frame: Frame, history: Sequence[Measured]) -> tuple[ResultTable, list[Figure]]:
    names = [
        n for n in ("rows", "loss", "accuracy", "auc", "auc_low", "auc_high") if any(vars(m)[n] is not None for m in history)
    ]
    rows = [(m.round, *(vars(m)[n] for n in names)) for m in history]
    where = "persons kept out of the training" if frame.spec.holdout else "the rows of the training"
    table = ResultTable.of(
        f"Evaluation by round, on {where}", ("round", *names), rows,
        notes=("auc_low and auc_high bound what the score histogram leaves open",) if "auc_low" in names else (),
    )  # fmt: skip
    figures = [
        Figure("curve", "rounds", f"{title} of {frame.spec.name} by round", {"x": "round", "y": name}, "round", title.lower())
        for name, title in (("loss", "Loss"), ("accuracy", "Accuracy"))
        if name in names
    ]
    if {"auc", "auc_low", "auc_high"} <= set(names):
        mapping = {"x": "round", "y": "auc", "low": "auc_low", "high": "auc_high"}
        figures.append(
            Figure("curve", "rounds", f"Area under the ROC curve of {frame.spec.name} by round", mapping, "round", "area")
        )
    return table, figures


def _weights(frame: Frame, weights: Floats) -> ResultTable:
    """Every weight, in full precision; of a wide model none (its digest is a fact, and it is exported as a file)."""
    rows: list[tuple[Any, ...]] = []
    if len(weights) <= MOST_LISTED:
        for name, values in named(weights, frame.spec.shapes).items():
            rows += [(name, ",".join(map(str, index)), float(values[index])) for index in np.ndindex(values.shape)]
    note = "of columns scaled as in `scaling`" if rows else f"more than {MOST_LISTED} weights are not listed"
    return ResultTable.of("Weights of the model", ("layer", "index", "value"), rows, notes=(note,))


def _scaling(frame: Frame) -> ResultTable:
    """What a row has to be scaled by before the weights are used: (value - centre) / scale."""
    numbers = zip(frame.spec.design.numbers, frame.constants.centre, frame.constants.scale, strict=True)
    rows: list[tuple[Any, ...]] = list(numbers)
    if frame.spec.task == "regression":
        rows.append((frame.spec.response, *frame.unit))
    return ResultTable.of("Scaling of the numbers: (value - centre) / scale", ("variable", "centre", "scale"), rows)


def _coefficients(frame: Frame, weights: Floats) -> ResultTable:
    """Coefficients by term, of the scaled columns and of the columns in their own units."""
    spec, design = frame.spec, frame.spec.design
    arrays = named(weights, spec.shapes)
    outputs = spec.model.outputs
    scaled = np.zeros((design.width, outputs))
    slopes = np.array([bool(c.variables) for c in design.columns])
    scaled[slopes] = arrays["coefficients"]
    if "intercept" in arrays:
        scaled[~slopes] = arrays["intercept"]
    raw = np.linalg.solve(transform(design, frame.constants), scaled) * frame.unit[1]
    if spec.task == "regression" and "intercept" in arrays:
        raw[~slopes] += frame.unit[0]
    names = class_names(spec)
    rows = [
        (c.name, *((names[k],) if outputs > 1 else ()), raw[j, k], scaled[j, k])
        for k in range(outputs)
        for j, c in enumerate(design.columns)
    ]
    columns = ("term", *(("class",) if outputs > 1 else ()), "estimate", "scaled")
    return ResultTable.of(
        f"Coefficients of {spec.response} on {', '.join(column_names(spec))}"[:200], columns, rows,
        notes=("a training gives no standard errors; for those, fit the method `glm`",),
    )  # fmt: skip


def _calibration(frame: Frame, final: Measured) -> tuple[ResultTable, Figure]:
    assert final.scores is not None
    table = ResultTable.of(
        f"Calibration of {frame.spec.name}: persons by predicted probability",
        ("predicted", "up_to", "persons", "observed"),
        calibration(final.scores),
        notes=("predicted is the middle of a bin; bins with few persons are withheld",),
    )
    mapping = {"x": "predicted", "y": "observed"}
    return table, Figure(
        "curve", "calibration", f"Calibration of {frame.spec.name}", mapping, "predicted probability", "observed share"
    )
