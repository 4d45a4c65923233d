"""A method that trains nothing, for the benchmark of rounds: each client answers a zero for each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.protocol.questions import Array, Field, Rounds, Sum, site_step
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis


@dataclass(frozen=True)
class Spec:
    rounds: int
    width: int


@site_step("nothing.update")
def update(table: Any, *, weights: Array) -> Mapping[str, Array]:
    return {"update": weights}


def rounds(spec: Spec) -> Rounds:
    weights, sites = np.zeros(spec.width), ()
    for _ in range(spec.rounds):
        total = yield Sum(update, (Field("update", "update", 1.0, (spec.width,)),), {"weights": weights})
        weights, sites = total["update"] / len(total.sites), total.sites
    return Result("nothing", {}, {}, sites)


def parse(analysis: Analysis, setting: Setting) -> Spec:
    return Spec(int(analysis.options["rounds"]), int(analysis.options["width"]))


METHOD = Method("nothing", "Nothing", "", parse, rounds, (update,), lambda spec: Cost(spec.rounds, spec.width))
