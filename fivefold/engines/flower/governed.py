"""A user's own Flower ClientApp, governed: FedAvg in which each site's training is somebody else's code.

method: flower_app
formula: malignant ~ radius + texture
options: {app: tumour, digest: 3f1a…, model: {kind: logistic}, rounds: 10, clip: 1.0}

The app is known by its digest, which stands in the signed study, and so in what each custodian approved; the site's policy
names it (`steps: [flower_app.tumour/1]`), since what it computes cannot be replayed; and it has to lie at the site already. All
that is asked before a row is read. What it gives back is one site's step like any other: clipped, noised where the study says
so, through the gate, masked, audited. A run has no other way to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from fivefold.algorithms.fedavg import METHOD as FEDAVG
from fivefold.algorithms.fedavg import begin, learn, price
from fivefold.algorithms.method import Method, Setting
from fivefold.algorithms.training_loop import Frame, State, Strategy, Training, ask_update, train
from fivefold.algorithms.training_rows import chance, clipped, problem
from fivefold.algorithms.training_spec import TrainingSpec, parse_training, refuse_what_noise_cannot_protect
from fivefold.algorithms.training_steps import weight_of
from fivefold.engines.flower.foreign_app import admitted, trained
from fivefold.errors import PolicyRefuses
from fivefold.models.model import flat, named
from fivefold.protocol.questions import Array, SiteStep, Snapshot, Sum
from fivefold.study.definition import Analysis
from fivefold.study.table import Table


@dataclass(frozen=True)
class AppSpec(TrainingSpec):
    """`app` is its name, `digest` SHA-256 (hex) over its files."""

    app: str = ""
    digest: str = ""


@lru_cache(maxsize=64)
def client_app(app: str) -> SiteStep:
    """The step of one app: `flower_app.NAME/1`. It leaves more than a sum says, as nobody knows what it computes: the policy
    has to name it."""
    return SiteStep(f"flower_app.{app}", 1, "reply", _client_app)


def _client_app(
    table: Table, *, weights: Array, round: int, rate: float, mu: float, fit: Mapping[str, Any], local: Mapping[str, Any],
    app: str, digest: str,
) -> Mapping[str, Array]:  # fmt: skip
    """The weighted, clipped update that the app makes from `weights` (size,). Its bytes are compared once more."""
    files = admitted(app, digest)
    model, rows, _ = problem(table, fit)
    share = weight_of(rows, local)
    update = np.zeros(len(weights))
    if share:
        start = named(np.asarray(weights), model.shapes)
        config = {
            "round": round, "learning_rate": float(rate), "local_epochs": int(local["epochs"]),
            "batch_size": int(local["batch_size"]), "seed": int(chance(fit["seed"], table.site, round).integers(1 << 31)),
        }  # fmt: skip
        after = trained(files, list(start.values()), rows.x, rows.y, config)
        moved = flat(dict(zip(start, after, strict=True))) - weights
        update = share * clipped(moved, local["clip"])
    return {"update": update} if local["weighting"] == "site" else {"update": update, "weight": np.asarray(share)}


def ask(frame: Frame, state: State, round: int) -> Sum:
    """FedAvg's question, put to the app."""
    spec, own = frame.spec, ask_update(frame, state, round)
    assert isinstance(spec, AppSpec)
    return replace(own, step=client_app(spec.app), arguments={**own.arguments, "app": spec.app, "digest": spec.digest})


def rounds(spec: AppSpec, resume: Snapshot | None = None) -> Training:
    """The rounds of FedAvg."""
    result = yield from train(spec, Strategy(begin, ask, learn), resume)
    return replace(result, method=METHOD.name)


def parse(analysis: Analysis, setting: Setting) -> AppSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    spec, options = parse_training(analysis, setting, ("app", "digest"))
    app, digest = options.text("app"), options.text("digest")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", app):
        options.fault(f"'app' is {app!r}", "Write the app's name: small letters, digits and _, 40 at most.")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        options.fault("'digest' is not 64 hex digits", "Write what `fivefold site app FOLDER` shows.")
    if spec.following is not None:
        options.fault("an app's update needs a fixed 'clip'", "Write `clip: 1.0`: the largest L2 norm of a site's update.")
    if not spec.clip:
        options.fault("an app's update needs a 'clip'", "Write `clip: 1.0`: the largest L2 norm of a site's update.")
    refuse_what_noise_cannot_protect(spec, options, one_gradient=False)
    return AppSpec(**vars(spec), app=app, digest=digest)


def admit(spec: AppSpec, steps: frozenset[str]) -> None:
    """Before a row is read: the policy names the app, and the app is here and has the study's digest.

    Raises `PolicyRefuses`, `NotApproved`.
    """
    step = client_app(spec.app).identity
    if step not in steps:
        raise PolicyRefuses(
            f"this site's policy does not name {step}",
            rule="steps",
            help=f"Write `steps: [{step}]` into site.yaml, and sign it, if that app may run here.",
        )
    admitted(spec.app, spec.digest)


METHOD = Method(
    name="flower_app",
    title="Federated averaging with a Flower ClientApp of the user's own",
    paper=FEDAVG.paper,
    parse=parse,
    rounds=rounds,
    steps=FEDAVG.steps,
    cost=price,
    protects=("site",),
    admit=admit,
)
