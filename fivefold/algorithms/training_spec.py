"""What every federated training reads from an analysis: columns, model, how sites train, when it is evaluated, when it ends.

method: fedavg
formula: malignant ~ radius + texture
options: {model: {kind: logistic}, rounds: 30, local_epochs: 2, batch_size: 32, learning_rate: 0.1}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Facts
from fivefold.algorithms.design import Design, Scaling, design, known, level_label, ranged, scaling
from fivefold.algorithms.method import Setting
from fivefold.algorithms.options import Options
from fivefold.algorithms.training_clip import Following
from fivefold.errors import FormulaInvalid
from fivefold.models.model import HIDDEN, KINDS, MORE, Model, ModelSpec, Task, build, more
from fivefold.study.definition import Analysis
from fivefold.study.formula import SITE, Formula, Survival, parse

OPTIONS = (
    "model", "rounds", "local_epochs", "batch_size", "learning_rate", "schedule", "scaling", "ranges", "weighting",
    "update_bound", "clip", "clip_start", "clip_quantile", "clip_rate",
    "holdout", "evaluate_every", "bins", "patience", "snapshot_every",
)  # fmt: skip
MODEL_KEYS = ("kind", "hidden", "l2")
SCHEDULES = ("constant", "linear", "cosine", "step")
MOST_LISTED = 5_000
"""Weights that a result's table lists."""


@dataclass(frozen=True)
class TrainingSpec:
    """What `parse_training` makes of an analysis.

    `update_bound` is the largest absolute value of one element of a site's update, `clip` (0: none) the largest L2 norm of the
    whole. `holdout` is the share of each site's persons that is kept for evaluation; `patience` (0: none) the evaluations
    without a better loss after which training ends. `bins` are those of the score histogram.
    """

    name: str
    formula: Formula
    task: Task
    model: ModelSpec
    subgroup: str
    rounds: int
    local_epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    scaling: str
    weighting: str
    update_bound: float
    clip: float
    holdout: float
    evaluate_every: int
    bins: int
    patience: int
    snapshot_every: int
    setting: Setting
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Narrower ranges than the dictionary's, by which numbers are scaled; known to everybody before the study."""
    personal: tuple[str, ...] = ()
    """Weights that stay at each site."""
    local_steps: int = 0
    """Noisy steps that a site takes in a round, each on persons drawn with the probability `sampling` (local DP-SGD); 0: none,
    a round being one sum over all persons."""
    sampling: float = 1.0
    following: Following | None = None
    """How the clip follows the norms; None where it is fixed. `clip` is then that of the first round."""

    @property
    def response(self) -> str:
        return self.formula.outcome

    @property
    def variables(self) -> tuple[str, ...]:
        """What must be known of a row."""
        return self.formula.variables

    @property
    def design(self) -> Design:
        return design(self.formula, self.setting.dictionary)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers whose federated mean and deviation scale the columns; none where public ranges do."""
        if self.scaling == "range":
            return ()
        wanted = (*self.design.numbers, *((self.response,) if self.task == "regression" else ()))
        return tuple(n for n in wanted if self.setting.dictionary[n].type != "boolean")

    @property
    def private_unit(self) -> str:
        """`person` or `site` where the study has differential privacy, else nothing."""
        private = self.setting.differential_privacy
        return private.unit if private is not None else ""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the weights that are shared."""
        return {n: shape for n, shape in self.network().shapes.items() if n not in self.personal}

    @property
    def width(self) -> int:
        """The number of shared weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def network(self) -> Model:
        return build(self.model)

    def rate(self, round: int) -> float:
        """The sites' learning rate in a round (from 1)."""
        done = (round - 1) / max(self.rounds, 1)
        if self.schedule == "linear":
            return self.learning_rate * (1 - done)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "step":
            return self.learning_rate * (0.1 if done >= 0.75 else 0.3 if done >= 0.5 else 1.0)
        return self.learning_rate


def parse_training(analysis: Analysis, setting: Setting, more: Sequence[str] = ()) -> tuple[TrainingSpec, Options]:
    """The spec, and the options for what a method reads beyond it (`more` names those). Raises `StudyInvalid` or
    `FormulaInvalid` with what to write instead."""
    options = Options(analysis, (*OPTIONS, *more))
    formula = _formula(analysis.formula)
    task, outputs = _task(formula.outcome, setting, analysis.formula)
    options.subgroup(setting.dictionary)
    columns = design(formula, setting.dictionary)
    private = setting.differential_privacy
    spec = TrainingSpec(
        name=analysis.name,
        formula=formula,
        task=task,
        model=_model(options, task, outputs, columns, setting),
        subgroup=analysis.subgroup,
        rounds=options.integer("rounds", 20, 1, 10_000),
        local_epochs=options.integer("local_epochs", 1, 1, 1_000),
        batch_size=options.integer("batch_size", 0, 0, 1_000_000),
        learning_rate=options.number("learning_rate", 0.1, 1e-9, 1e3),
        schedule=options.choice("schedule", SCHEDULES, "constant"),
        scaling=options.choice("scaling", ("federated", "range"), "range" if private else "federated"),
        weighting=options.choice("weighting", ("rows", "equal"), "equal" if private else "rows"),
        update_bound=options.number("update_bound", 16.0, 1e-6, 1e6),
        clip=_clip(options),
        holdout=options.number("holdout", 0.0, 0.0, 0.5),
        evaluate_every=options.integer("evaluate_every", 0 if private else 1, 0, 10_000),
        bins=options.integer("bins", 10, 0, 200),
        patience=options.integer("patience", 0, 0, 10_000),
        snapshot_every=options.integer("snapshot_every", 25, 1, 10_000),
        setting=setting,
        ranges=_ranges(options, columns),
        following=_following(options, setting),
    )
    if spec.ranges and spec.scaling != "range":
        options.fault("'ranges' are given, and numbers are scaled by their federated means", "Write `scaling: range` too.")
    if spec.patience and not spec.evaluate_every:
        options.fault(
            "'patience' waits for a better loss, and nothing is evaluated", "Write `evaluate_every: 1`, or no `patience`."
        )
    return spec, options


def _clip(options: Options) -> float:
    if options.given.get("clip") == "adaptive":
        return options.number("clip_start", 1.0, 1e-3, 1e3)
    return options.number("clip", 0.0, 0.0, 1e6)


def _following(options: Options, setting: Setting) -> Following | None:
    """`clip: adaptive`, with `clip_start`, `clip_quantile` and `clip_rate`."""
    if options.given.get("clip") != "adaptive":
        for key in ("clip_start", "clip_quantile", "clip_rate"):
            if key in options.given:
                options.fault(f"{key!r} is given, and the clip is fixed", "Write `clip: adaptive` too, or take it out.")
        return None
    if setting.differential_privacy is None:
        options.fault("'clip' is adaptive, and sums are exact", "Write a number, or `differential_privacy` under privacy.")
    return Following(options.number("clip_quantile", 0.5, 0.01, 0.99), options.number("clip_rate", 0.2, 1e-3, 1.0))


def _formula(text: str) -> Formula:
    formula = parse(text)
    if isinstance(formula.response, Survival):
        raise FormulaInvalid(f"`{text}` has a survival response", help="Use the method `cox`, or name one outcome.")
    if formula.strata:
        raise FormulaInvalid(f"`{text}` has strata, which a training has not", help="Take them out.")
    if formula.by_site or any(SITE in t.variables for t in formula.terms):
        raise FormulaInvalid(
            f"`{text}` has effects by site", help="Use the method `personalised`, which keeps parameters at each site."
        )
    return formula


def _ranges(options: Options, columns: Design) -> dict[str, tuple[float, float]]:
    """`{radius: [5, 30]}`: how wide a number is for most persons. Nothing is cut: it only scales."""
    given = options.given.get("ranges", {})
    example = "Write `ranges: {radius: [5, 30]}`: a covariate, and between which values most persons lie."
    if not isinstance(given, Mapping):
        options.fault(f"'ranges' is {given!r}", example)
    for name, pair in given.items():
        whole = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(v) in (int, float) for v in pair)
        if name not in columns.numbers or not whole or not -1e300 < pair[0] < pair[1] < 1e300:
            options.fault(f"'ranges' has {name!r}: {pair!r}", example)
    return {str(name): (float(pair[0]), float(pair[1])) for name, pair in given.items()}


def _task(name: str, setting: Setting, where: str) -> tuple[Task, int]:
    """What is predicted, by the response's type, and how many numbers that takes."""
    variable = known(name, setting.dictionary, where)
    if variable.type == "boolean" or (variable.type == "category" and len(variable.levels) == 2):
        return "binary", 1
    if variable.type == "integer" and variable.minimum == 0 and variable.maximum == 1:
        return "binary", 1
    if variable.type == "category":
        return "classes", len(variable.levels)
    if variable.type not in ("number", "integer"):
        raise FormulaInvalid(
            f"`{where}` predicts {name!r}, a {variable.type}", help="Name a number or a category.", variable=name
        )
    ranged(variable, where)
    return "regression", 1


def _model(options: Options, task: Task, outputs: int, columns: Design, setting: Setting) -> ModelSpec:
    given = options.given.get("model", {})
    default = {"regression": "linear", "binary": "logistic", "classes": "softmax"}[task]
    example = f"Write `model: {{kind: {default}}}`; the kinds are: {', '.join(KINDS)}."
    if not isinstance(given, Mapping):
        options.fault(f"'model' is {given!r}", example)
    kind = given.get("kind", default)
    if kind not in KINDS:
        options.fault(f"there is no 'model' of the kind {kind!r}", example)
    keys = (*MODEL_KEYS, *MORE.get(kind, ()))
    for key in given:
        if key not in keys:
            options.fault(f"'model' has no key {key!r}", f"The keys of a model are: {', '.join(keys)}.")
    if task not in KINDS[kind][1]:
        response = options.analysis.formula.partition("~")[0].strip()
        options.fault(
            f"the 'model' {kind} cannot predict {response!r}", f"Write `model: {{kind: {default}}}` or a kind that can."
        )
    hidden = given.get("hidden", HIDDEN.get(kind, ()))
    if not isinstance(hidden, (list, tuple)) or not all(type(h) is int and 1 <= h <= 10_000 for h in hidden) or len(hidden) > 8:
        options.fault(f"the 'model' has the hidden layers {hidden!r}", "Write `hidden: [32, 16]`: the width of each layer.")
    penalty = given.get("l2", 0.0)
    if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not 0 <= penalty <= 1e6:
        options.fault(f"the 'model' has l2: {penalty!r}", "Write a number from 0 to 1000000.")
    features = sum(1 for c in columns.columns if c.variables)
    if not features:
        options.fault(f"`{options.analysis.formula}` has no covariate", "Name at least one.")
    own: dict[str, Any] = {}
    try:
        own = more(kind, given, features)
    except ValueError as error:
        options.fault(f"in 'model', {error}", "Correct it there.")
    return ModelSpec(kind, task, features, outputs, columns.intercept is not None, tuple(hidden), float(penalty), own)


def refuse_what_noise_cannot_protect(spec: TrainingSpec, options: Options, *, one_gradient: bool) -> None:
    """What differential privacy asks of a training. `one_gradient`: the method can ask for one gradient a round.

    For `unit: person` a round is one sum of clipped gradients of persons (Abadi et al., CCS 2016, without sampling); for
    `unit: site` the clipped update of a site, every site weighing the same (McMahan et al., ICLR 2018).
    """
    if not spec.private_unit:
        return
    if not spec.clip:
        options.fault(
            "differential privacy needs a 'clip'", f"Write `clip: 1.0`: the largest L2 norm that one {spec.private_unit} gives."
        )
    if spec.scaling != "range":
        options.fault("'scaling' by federated means is not protected", "Write `scaling: range`: the dictionary's ranges.")
    if spec.weighting != "equal":
        options.fault("'weighting' by rows would tell each site's rows", "Write `weighting: equal`.")
    if spec.private_unit == "site":
        if spec.evaluate_every:
            options.fault("'evaluate_every' would need noise for a whole site", "Write `evaluate_every: 0`.")
        return
    if not one_gradient:
        options.fault(
            f"{options.analysis.method} takes several steps a round, which protects no single person",
            "Write `unit: site` in the study, or use fedavg or fedopt.",
        )
    if spec.model.kind == "code":
        options.fault(
            "a model of your own code sees all persons of a site, so that nothing bounds what one of them changes",
            "Write `unit: site` in the study, or take a built-in model.",
        )
    if spec.local_epochs > 1 or spec.batch_size:
        options.fault(
            "'unit: person' takes one step a round, over all rows",
            "Take 'local_epochs' and 'batch_size' out, or write `unit: site`.",
        )
    if spec.evaluate_every and spec.task == "regression":
        options.fault("'evaluate_every' is not protected for a number", "Write `evaluate_every: 0`.")


def with_noisy_steps(spec: TrainingSpec, options: Options) -> TrainingSpec:
    """`local_steps` and `sampling`: sites take noisy steps of their own (Abadi et al., CCS 2016, algorithm 1, at each site)."""
    steps = options.integer("local_steps", 0, 0, 10_000)
    sampling = options.number("sampling", 1.0, 1e-4, 1.0)
    if not steps:
        if "sampling" in options.given:
            options.fault(
                "'sampling' is given, and no site takes steps of its own", "Write `local_steps: 10` too, or take it out."
            )
        return spec
    if spec.private_unit != "person":
        options.fault(
            "'local_steps' are steps with noise for persons, and the study protects none",
            "Write `unit: person` under differential_privacy, or `local_epochs` instead.",
        )
    if spec.following is not None:
        options.fault("'local_steps' have a fixed clip", "Write a number for `clip`, or take 'local_steps' out.")
    return replace(spec, local_steps=steps, sampling=sampling)


def scaled_columns(spec: TrainingSpec, found: Facts | None) -> tuple[Scaling, tuple[float, float]]:
    """Public constants: of the columns, and centre and unit of a numeric response ((0, 1) for a class)."""
    columns, dictionary = spec.design, spec.setting.dictionary
    known_moments = found is not None and bool(spec.numbers)
    mean = dict(zip(spec.numbers, found.mean, strict=True)) if found is not None and known_moments else {}
    deviation = dict(zip(spec.numbers, found.deviation, strict=True)) if found is not None and known_moments else {}

    def moments(name: str) -> tuple[float, float]:
        low, high = spec.ranges.get(name, (float(dictionary[name].minimum or 0), float(dictionary[name].maximum or 0)))
        half = (high - low) / 2
        return float(mean.get(name, (low + high) / 2)), max(float(deviation.get(name, half)), 1e-3 * half)

    pairs = [moments(n) for n in columns.numbers]
    constants = Scaling(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    if not columns.closed:
        constants = scaling(columns, dictionary)
    return constants, moments(spec.response) if spec.task == "regression" else (0.0, 1.0)


def column_names(spec: TrainingSpec) -> tuple[str, ...]:
    """The names of the model's features, in order."""
    return tuple(c.name for c in spec.design.columns if c.variables)


def class_names(spec: TrainingSpec) -> tuple[str, ...]:
    """What the outputs are called."""
    variable = spec.setting.dictionary[spec.response]
    if spec.task == "classes":
        return tuple(level_label(variable, i) for i in range(len(variable.levels)))
    return (spec.response,)
