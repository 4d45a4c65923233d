"""What privacy costs in accuracy: the FedAdam of examples/breast/private.yaml at several ε, and its pooled twin.

    python -m examples.privacy_price [--seeds 20] [--plot FOLDER]

For each ε the noise is what the whole study needs for it at δ = 1e-5 (all its questions, the description too), drawn and added
up as the sites do it: clipped gradients in the ring, a share of the discrete Gaussian each. A quarter of the persons is held
out, others with every seed, and judged exactly, which no run could show. The pooled twin is scikit-learn's logistic regression
on the same columns of the same persons, without noise.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from examples.breast.data import pooled
from fivefold.algorithms.method import Setting
from fivefold.algorithms.training_loop import framed
from fivefold.algorithms.training_rows import Part, problem
from fivefold.algorithms.training_steps import judged
from fivefold.governance.study_check import check
from fivefold.governance.study_estimate import estimate
from fivefold.models.model import Model, named
from fivefold.plugins import method
from fivefold.privacy.dp.accounting import multiplier_for
from fivefold.privacy.dp.shares import noisy
from fivefold.privacy.fixed_point import pack, ring_for, unpack, width
from fivefold.privacy.secagg.ring import add_into, zeros
from fivefold.protocol.questions import Aggregate, Snapshot, Sum, read_only
from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.replay.cursor import setting_of
from fivefold.site.noising import noised
from fivefold.study.definition import Analysis, Study
from fivefold.study.table import Table

STUDY = Path(__file__).parent / "breast" / "private.yaml"
EPSILONS = (0.5, 1.0, 3.0, 10.0)
SEEDS = 20
NO_NOISE = "no noise"


@dataclass(frozen=True)
class Price:
    """Accuracy on the persons held out, by seed; and by seed and round, shape (seeds, rounds + 1)."""

    name: str
    multiplier: float
    accuracy: np.ndarray
    curve: np.ndarray | None
    twin: np.ndarray

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean of the paired differences to the pooled twin, with its 95 % interval (Student's t)."""
        return interval(self.accuracy - self.twin)

    def line(self) -> str:
        mean, low, high = self.interval
        noise = f"{self.multiplier:.2f}" if self.multiplier else "-"
        own = f"{self.accuracy.mean():.3f} ± {self.accuracy.std(ddof=1):.3f}"
        return f"{self.name:9} {noise:>7} {own:>15} {self.twin.mean():>8.3f}   {mean:+.3f} ({low:+.3f} to {high:+.3f})"


HEADING = f"{'ε':9} {'noise z':>7} {'federated':>15} {'pooled':>8}   difference (95 % interval)"


def interval(values: np.ndarray) -> tuple[float, float, float]:
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def tables_of(study: Study) -> tuple[Table, ...]:
    """Each hospital's rows in the study's own terms; every row is a person."""
    frame, _ = pooled()
    out = []
    for site in (s.name for s in study.sites):
        rows = frame[frame.site == site]
        columns = {n: rows[n].to_numpy(dtype=np.float64) for n in study.phenotypes.variables}
        out.append(Table(site, study.phenotypes, columns, np.arange(len(rows))))
    return tuple(out)


def study_and_analysis() -> tuple[Study, Analysis]:
    study = check(STUDY).reading.study
    assert study is not None
    return study, next(a for a in study.analyses if a.method == "fedopt")


def multiplier(study: Study, epsilon: float) -> float:
    """The noise with which all questions of the study cost so much."""
    private = study.privacy.differential_privacy
    assert private is not None
    return multiplier_for(estimate(study).rounds, epsilon, private.delta)


# ---- one training, as the sites make it ----------------------------------------------------------------------------------
def trained(analysis: Analysis, setting: Setting, tables: Sequence[Table], noise: bool, chance: int) -> list[np.ndarray]:
    """The weights before each round and after the last. `chance` makes the sites' secrets."""
    chosen = method(analysis.method)
    spec = chosen.parse(analysis, setting)
    generator, sent, weights, asked = chosen.rounds(spec), None, list[np.ndarray](), 0
    while True:
        try:
            question = generator.send(sent)
        except StopIteration as done:
            return [*weights, np.array(done.value.tables["weights"].column("value"), dtype=np.float64)]
        if isinstance(question, Snapshot):
            sent = None
            continue
        (one,), asked = question, asked + 1
        if "local" in one.arguments:
            weights.append(np.asarray(one.arguments["weights"]))
        sent = (total(one, setting, tables, noise, f"{chance} {asked}"),)


def total(one: Sum, setting: Setting, tables: Sequence[Table], noise: bool, secret: str) -> Aggregate:
    """What the secure sum would open."""
    assert setting.sharing is not None
    fields = noisy(one.fields, setting.sharing)
    added = zeros(width(fields), ring_for(fields))
    for table in tables:
        answer: Mapping[str, Any] = one.step(table, **one.arguments)
        vector = pack({n: np.asarray(v) for n, v in answer.items()}, fields, len(tables))
        if noise:
            vector = noised(vector, fields, hashlib.sha256(f"{secret} {table.site}".encode()).digest())
        add_into(added, vector, ring_for(fields))
    opened = unpack(added, fields, len(tables), len(tables))
    return Aggregate({n: read_only(v) for n, v in opened.items()}, tuple(t.site for t in tables))


def parts(analysis: Analysis, setting: Setting, tables: Sequence[Table]) -> tuple[Model, Part, Part]:
    """The model, the persons that train and those held out, all in one place."""
    spec = method(analysis.method).parse(analysis, setting)
    found = [problem(t, framed(spec, None, 1, 1).fit) for t in tables]
    return found[0][0], joined([p[1] for p in found]), joined([p[2] for p in found])


def joined(some: Sequence[Part]) -> Part:
    person = np.concatenate([p.person + 10_000 * i for i, p in enumerate(some)])
    return Part(np.concatenate([p.x for p in some]), np.concatenate([p.y for p in some]), person)


def share_right(model: Model, weights: np.ndarray, kept: Part) -> float:
    told = judged(model, named(weights, model.shapes), kept, 0)
    return int(told["right"]) / int(told["rows"])


# ---- the price -------------------------------------------------------------------------------------------------------------
def price(epsilons: Sequence[float] = EPSILONS, seeds: Sequence[int] = range(42, 42 + SEEDS), **options: Any) -> list[Price]:
    """One row for each ε, and one without noise. `options` take the place of the study's."""
    from sklearn.linear_model import LogisticRegression

    study, analysis = study_and_analysis()
    analysis = replace(analysis, options={**analysis.options, **options})
    study = replace(study, analyses=tuple(analysis if a.name == analysis.name else a for a in study.analyses))
    tables, out, twins = tables_of(study), list[Price](), dict[int, float]()
    for seed in seeds:
        _, train, kept = parts(analysis, replace(setting_of(study), seed=seed), tables)
        fit = LogisticRegression(C=1e4, max_iter=10_000).fit(train.x, train.y)
        twins[seed] = float(fit.score(kept.x, kept.y))
    private = study.privacy.differential_privacy
    assert private is not None
    for epsilon in (*epsilons, 0.0):
        z = multiplier(study, epsilon or max(epsilons))
        curves = []
        for seed in seeds:
            here = replace(setting_of(study), seed=seed, differential_privacy=replace(private, noise_multiplier=z))
            model, _, kept = parts(analysis, here, tables)
            weights = trained(analysis, here, tables, bool(epsilon), seed)
            curves.append([share_right(model, w, kept) for w in weights])
        curve = np.array(curves)
        name = f"{epsilon:g}" if epsilon else NO_NOISE
        out.append(Price(name, z if epsilon else 0.0, curve[:, -1], curve, np.array([twins[s] for s in seeds])))
    return out


def curves(rows: Sequence[Price]) -> tuple[Figure, Result]:
    """Accuracy by round, mean over seeds with its 95 % interval; one curve an ε."""
    cells: list[tuple[Any, ...]] = []
    for row in rows:
        assert row.curve is not None
        for i, column in enumerate(row.curve.T):
            mean, low, high = interval(column)
            cells.append((i, mean, low, high, f"ε = {row.name}" if row.multiplier else row.name))
    table = ResultTable.of(
        "Accuracy on persons held out, by round", ("round", "accuracy", "low", "high", "series"), cells,
        notes=(f"means over {len(rows[0].accuracy)} seeds with 95 % intervals",),
    )  # fmt: skip
    mapping = {"x": "round", "y": "accuracy", "low": "low", "high": "high", "series": "series"}
    figure = Figure("curve", "curve", "FedAdam on breast masses: what privacy costs", mapping, "round", "accuracy")
    study, _ = study_and_analysis()
    return figure, Result("fedopt", {"curve": table}, {"persons": len(pooled()[0])}, tuple(s.name for s in study.sites))


def main(arguments: Sequence[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m examples.privacy_price", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--plot", type=Path, metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    rows = price(seeds=range(42, 42 + chosen.seeds))
    print(f"Accuracy on persons held out, mean ± standard deviation over {chosen.seeds} seeds")
    print(HEADING)
    for row in rows:
        print(row.line())
    if chosen.plot:
        from fivefold.results.plots import draw

        chosen.plot.mkdir(parents=True, exist_ok=True)
        (chosen.plot / "privacy-price.svg").write_bytes(draw(*curves(rows))["svg"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
