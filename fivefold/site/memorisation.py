"""Does a trained model tell whom it was trained on? Asked at each site, on its own members and its own hold-out.

Whoever has the model and somebody's record can compare its loss with what is usual: where members have smaller losses than
others, the model tells who was among them (Yeom et al., "Privacy risk in machine learning", 2018). The site plays that attack
on the persons of its training and on those whom the study held out, who are strangers to the model and otherwise like them.
Only whether the site objects leaves, in the secure sum of all sites' objections.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fivefold.algorithms.cohort import Floats
from fivefold.algorithms.design import Scaling
from fivefold.algorithms.training_loop import Frame
from fivefold.algorithms.training_rows import Part, problem
from fivefold.algorithms.training_spec import TrainingSpec
from fivefold.algorithms.training_steps import by_person, losses
from fivefold.models.model import Model as Network
from fivefold.models.model import named
from fivefold.plugins import method
from fivefold.protocol.results import Result
from fivefold.replay.cursor import setting_of
from fivefold.study.definition import Analysis, Study
from fivefold.study.table import Table

MOST = 0.6
"""Of the area under the attack's ROC curve; 0.5 is chance."""
SURE = 2.0
"""Standard errors by which it has to lie above chance: few persons held out prove little."""


@dataclass(frozen=True)
class Model:
    """A model as it would be released: its weights in order, and centre and scale by variable."""

    weights: tuple[float, ...]
    scaling: tuple[tuple[str, float, float], ...]


def model_of(result: Result) -> Model | None:
    """The model in a result; None where there is none, or where its tables do not list it whole."""
    weights, scaling = result.tables.get("weights"), result.tables.get("scaling")
    if weights is None or scaling is None or not weights.rows:
        return None
    values = [*weights.column("value"), *(v for row in scaling.rows for v in row[1:])]
    if not all(isinstance(v, (int, float)) for v in values):
        return None
    rows = tuple((str(name), float(centre), float(scale)) for name, centre, scale in scaling.rows)  # type: ignore[arg-type]
    return Model(tuple(float(v) for v in weights.column("value")), rows)  # type: ignore[arg-type]


def power(study: Study, analysis: Analysis, model: Model, table: Table) -> tuple[float, float] | None:
    """The attack's area under the ROC curve on this site's rows, and its standard error where it is blind (Mann and Whitney,
    1947). None where the site cannot tell: nobody was held out, or a part of the model stayed at the sites."""
    spec = method(analysis.method).parse(analysis, setting_of(study))
    if not isinstance(spec, TrainingSpec) or not spec.holdout or spec.personal or spec.width != len(model.weights):
        return None
    built, members, others = parts(spec, model.scaling, table)
    weights = named(np.array(model.weights), built.shapes)

    def of(rows: Part) -> Floats:
        if not len(rows):
            return np.zeros(0)
        return by_person(rows, losses(built.spec.task, built.predict(weights, rows.x), rows.y))[0]

    return attack(of(members), of(others))


def parts(spec: TrainingSpec, scaling: Sequence[tuple[str, float, float]], table: Table) -> tuple[Network, Part, Part]:
    """The model of a training, the rows that it was trained on at this site, and those held out."""
    scaled = {name: (centre, scale) for name, centre, scale in scaling}
    pairs = [scaled[n] for n in spec.design.numbers]
    constants = Scaling(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    unit = scaled[spec.response] if spec.task == "regression" else (0.0, 1.0)
    return problem(table, Frame(spec, None, 0, 0, constants, unit).fit)


def attack(members: Floats, others: Floats) -> tuple[float, float] | None:
    """How often a member's loss is below that of somebody who is none, ties counted half, and the standard error of chance."""
    m, n = len(members), len(others)
    if not m or not n:
        return None
    ordered = np.sort(others)
    above = n - np.searchsorted(ordered, members, side="right")
    ties = np.searchsorted(ordered, members, side="right") - np.searchsorted(ordered, members, side="left")
    return float((above + ties / 2).sum() / (m * n)), math.sqrt((m + n + 1) / (12 * m * n))


def remembers(found: tuple[float, float] | None) -> bool:
    """Whether an attack of this power, beyond chance, is more than may be."""
    return found is not None and found[0] > MOST and found[0] - SURE * found[1] > 0.5
