"""A site attacks a trained model with its own persons: those who were trained on, and those whom the study held out.

Before a release each site tries every model that would go out, and objects to one that tells its members apart
(`site/release_ledger.py`): one more nought or one in the secure sum. The figures are for the custodian's eyes alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fivefold.algorithms.design import Scaling
from fivefold.algorithms.training_loop import Frame
from fivefold.algorithms.training_rows import Part, problem
from fivefold.algorithms.training_spec import TrainingSpec
from fivefold.algorithms.training_steps import losses
from fivefold.disclosure.memorisation import FEWEST, Answers, Power, attacks, flags
from fivefold.errors import ModelNotExported, NotApproved
from fivefold.models import safetensors
from fivefold.models.model import Model, Weights, named
from fivefold.plugins import method
from fivefold.protocol.objections import MEMBERSHIP, UNTESTED
from fivefold.replay.cursor import setting_of
from fivefold.site.folder import SiteFolder
from fivefold.site.preparation import open_prepared
from fivefold.study.digest import SignedStudy
from fivefold.study.table import Table


@dataclass(frozen=True)
class Attacked:
    """What came of it, as rules and remarks of `protocol/objections.py`; and, for the custodian alone, the power of each attack
    and the persons tried."""

    analysis: str
    rules: tuple[str, ...]
    powers: tuple[Power, ...]
    members: int
    others: int


def attack(site: SiteFolder, found: SignedStudy, model: bytes, *, now: datetime | None = None) -> Attacked:
    """Attack the model in a file (safetensors, as `fivefold model export` writes it).

    Raises `ModelNotExported` for a file that is no model of this study, `NotApproved` where the custodian approved not the
    study, or not the analysis, `SnapshotProblem`.
    """
    spec, weights, scaled = _read(found, model)
    analysis = next(a for a in found.study.analyses if a.name == spec.name)
    approval = site.approval(found.digest, now or datetime.now(UTC), study=found.study)
    if analysis.name not in approval.analyses:
        raise NotApproved("the custodian did not approve this analysis", rule="analysis_not_approved")
    approval.allow_code(analysis)
    scaling = [(n, *pair) for n, pair in scaled.items()]
    network, trained, kept = parts(spec, scaling, open_prepared(site, found.study, found.digest).table)
    inside, outside = _answers(network, weights, trained), _answers(network, weights, kept)
    classes, everybody = spec.task != "regression", inside if kept is trained else _together(inside, outside)
    form = flags(everybody, classes=classes, threshold=found.study.privacy.minimum_persons)
    if not spec.holdout:
        return Attacked(spec.name, (UNTESTED, *form), (), len(inside), 0)
    if min(len(inside), len(outside)) < FEWEST:
        return Attacked(spec.name, (UNTESTED, *form), (), len(inside), len(outside))
    powers = attacks(inside, outside, classes=classes, seed=spec.setting.seed)
    told_apart = (MEMBERSHIP,) if any(p.succeeds for p in powers) else ()
    return Attacked(spec.name, (*told_apart, *form), powers, len(inside), len(outside))


def parts(spec: TrainingSpec, scaling: Sequence[tuple[str, float, float]], table: Table) -> tuple[Model, Part, Part]:
    """The model of a training, the rows that it was trained on at this site, and those held out."""
    scaled = {name: (centre, scale) for name, centre, scale in scaling}
    pairs = [scaled[n] for n in spec.design.numbers]
    constants = Scaling(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    unit = scaled[spec.response] if spec.task == "regression" else (0.0, 1.0)
    return problem(table, Frame(spec, None, 0, 0, constants, unit).fit)


def _read(found: SignedStudy, model: bytes) -> tuple[TrainingSpec, Weights, Mapping[str, tuple[float, float]]]:
    """The spec of the analysis that a file says it is of, its weights, and centre and scale by variable."""
    try:
        about = safetensors.about(model)
        if about.get("study") != found.digest or "scaling" not in about:
            raise ModelNotExported("the file holds no model of this study", help="Take one that `fivefold model export` wrote.")
        analysis = next((a for a in found.study.analyses if a.name == about.get("analysis")), None)
        spec = method(analysis.method).parse(analysis, setting_of(found.study)) if analysis is not None else None
        if not isinstance(spec, TrainingSpec) or spec.personal:
            raise ModelNotExported("the file's analysis trains no whole model that a site could attack")
        weights = safetensors.load(model, spec.shapes)
        scaled = {str(n): (float(c), float(s)) for n, c, s in json.loads(about["scaling"])}
        wanted = {*spec.design.numbers, *((spec.response,) if spec.task == "regression" else ())}
        finite = all(np.isfinite(w).all() for w in weights.values()) and np.isfinite(list(scaled.values())).all()
        if set(scaled) != wanted or not finite or any(s <= 0 for _, s in scaled.values()):
            raise ValueError("scaling")
    except (safetensors.Malformed, ValueError, TypeError, RecursionError) as error:
        raise ModelNotExported(
            "the file of the model is not whole", help="Write it again with `fivefold model export`."
        ) from error
    return spec, {n: np.asarray(weights[n], dtype=np.float64) for n in spec.shapes}, scaled  # in the order of their digest


def _answers(model: Model, weights: Weights, rows: Part) -> Answers:
    """What the model says of each person: the mean over the person's rows; the outcome is that of the last."""
    if not len(rows):
        return Answers(np.zeros((0, 1)), np.zeros(0), np.zeros(0))
    predicted = np.asarray(model.predict(named(_flat(weights), model.shapes), rows.x), dtype=np.float64)
    loss = losses(model.spec.task, predicted, rows.y)
    _, who = np.unique(rows.person, return_inverse=True)
    count = np.bincount(who)
    mean = np.stack([np.bincount(who, weights=column) / count for column in predicted.T], axis=1)
    outcome = np.zeros(len(count))
    outcome[who] = rows.y
    return Answers(mean, np.bincount(who, weights=loss) / count, outcome)


def _together(one: Answers, two: Answers) -> Answers:
    both = ((one.predicted, two.predicted), (one.loss, two.loss), (one.outcome, two.outcome))
    return Answers(*(np.concatenate(pair) for pair in both)) if len(one) and len(two) else (one if len(one) else two)


def _flat(weights: Weights) -> Any:
    return np.concatenate([np.asarray(w, dtype=np.float64).reshape(-1) for w in weights.values()])
