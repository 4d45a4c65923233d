"""Each training method against its pooled twin, over five seeds: python -m examples.accuracy [--plain] [DATA ...]

DATA: breast, digits, images (the digits, by a network in PyTorch), heart; all of them where none is named.

For each data set and seed, a quarter (heart: 34 %) of the persons is held out. The federated model is trained by the method
through the secure sum, over real site folders; its twin by gradient descent on the pooled rows of the same persons, with the
same model, columns, epochs and learning rate. Both are judged on the same persons.

--plain adds up in the secure sum's arithmetic without masks, which gives the same numbers and takes minutes instead of half
an hour; without FedBuff and robust means, which live from who answers. Robust means see single updates, as each site permits,
and cyclic transfer that of the site whose turn it is.

`heart` reads the four hospitals' files from $FIVEFOLD_SHARED/data/heart, with the rows and features of FLamby's
Fed-Heart-Disease (du Terrail et al., NeurIPS 2022).
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fivefold.algorithms.cohort import facts
from fivefold.algorithms.method import Setting
from fivefold.algorithms.training_loop import framed
from fivefold.algorithms.training_rows import Part, Pull, chance, descend, first_weights, problem
from fivefold.algorithms.training_steps import judged
from fivefold.disclosure.rules import screen
from fivefold.models.model import named
from fivefold.plugins import method
from fivefold.privacy.fixed_point import pack, ring_for, unpack
from fivefold.privacy.secagg.ring import add_into
from fivefold.protocol.questions import STATE, Aggregate, Field, Snapshot, Sum, read_only
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table

if TYPE_CHECKING:
    import pandas as pd

SEEDS = (42, 43, 44, 45, 46)
LIVING = ("fedbuff", "robust")
"""Methods whose rounds hang on which sites answer, and when: only real sites run them."""
HEART = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal", "num")
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


@dataclasses.dataclass(frozen=True)
class Data:
    """A pooled frame with a column `site`, what its columns mean, and the options that suit it."""

    name: str
    frame: pd.DataFrame
    variables: tuple[Variable, ...]
    formula: str
    sites: tuple[str, ...]
    options: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]

    @property
    def dictionary(self) -> Dictionary:
        return Dictionary(self.name, "1", {v.name: v for v in self.variables})

    def analyses(self) -> tuple[Analysis, ...]:
        """One for each method."""
        return tuple(Analysis(m, m, self.formula, options={**self.options, **more}) for m, more in self.methods.items())


def number(name: str, low: float, high: float) -> Variable:
    return Variable(name, name, "number", minimum=low, maximum=high)


def category(name: str, codes: Sequence[str]) -> Variable:
    return Variable(name, name, "category", codes={c: f"{name} {c}" for c in codes})


def breast() -> Data:
    """Ten features of 569 tumours at five sites."""
    from sklearn.datasets import load_breast_cancer

    raw = load_breast_cancer(as_frame=True).frame
    names = [c for c in raw.columns if c.startswith("mean ")]
    frame = raw[names].rename(columns=lambda c: c.replace(" ", "_")).assign(malignant=1.0 - raw.target)
    sites = ("alder", "birch", "cedar", "elm", "fir")
    frame["site"] = np.random.default_rng(1993).choice(list(sites), len(frame), p=[0.28, 0.23, 0.2, 0.16, 0.13])
    tops = {c: float(f"{2 * frame[c].max():.1g}") for c in frame.columns if c.startswith("mean_")}
    variables = (*(number(c, 0, top) for c, top in tops.items()), Variable("malignant", "malignant", "boolean"))
    options = {"model": {"kind": "logistic"}, "rounds": 25, "batch_size": 16, "learning_rate": 0.1, "local_epochs": 2}
    return Data("breast", frame, variables, "malignant ~ " + " + ".join(tops), sites, finish(options, 0.25), methods(8, 4))


def digits() -> Data:
    """1,797 digits at ten sites, whose labels are skewed (Dirichlet 0.5; Hsu, Qi and Brown 2019)."""
    import pandas as pd
    from sklearn.datasets import load_digits

    raw = load_digits()
    names = [f"p{i}" for i in range(64)]
    frame = pd.DataFrame(raw.data, columns=names).assign(digit=raw.target.astype(float))
    sites = tuple(f"site-{i}" for i in range(10))
    rng = np.random.default_rng(5)
    shares = rng.dirichlet([0.5] * 10, 10)
    frame["site"] = [sites[int(rng.choice(10, p=shares[int(d)]))] for d in raw.target]
    variables = (*(number(n, 0, 16) for n in names), category("digit", "0123456789"))
    options = {"model": {"kind": "softmax"}, "rounds": 60, "batch_size": 16, "learning_rate": 0.1, "local_epochs": 3}
    more = methods(32, 8)
    more["fedopt"] |= {"server_rate": 0.1, "tau": 0.1}  # pixels that hardly ever vary must not take whole steps
    # A site of some hundred digits that lacks half of the labels has too few rows for a whole layer of its own.
    more["personalised"] |= {"personal": ["bias2"], "learning_rate": 0.2, "local_epochs": 1}
    return Data("digits", frame, variables, "digit ~ " + " + ".join(names), sites, finish(options, 0.25), more)


def images() -> Data:
    """The same digits and sites, read by a small convolutional network in PyTorch (as the example `digits` trains it)."""
    network = {"kind": "torch_cnn", "image": [1, 8, 8], "channels": [8, 16]}
    options = {"model": network, "rounds": 40, "batch_size": 16, "learning_rate": 0.2, "local_epochs": 2, "scaling": "range"}
    return dataclasses.replace(digits(), name="images", options=finish(options, 0.25), methods={"fedavg": {}})


def heart() -> Data | None:
    """The rows and features of FLamby: without slope, ca and thal, then without rows that miss a value: 740 patients."""
    import pandas as pd

    folder = Path(os.environ.get("FIVEFOLD_SHARED", "")) / "data" / "heart"
    if not (folder / "processed.va.data").exists():
        return None
    parts = [pd.read_csv(folder / f"processed.{h}.data", names=list(HEART), na_values="?").assign(site=h) for h in HOSPITALS]
    frame = pd.concat(parts, ignore_index=True).drop(columns=["slope", "ca", "thal"]).dropna().reset_index(drop=True)
    frame = frame.assign(disease=(frame.num > 0).astype(float), cp=frame.cp - 1)
    variables = (
        number("age", 18, 100), Variable("sex", "sex", "boolean"), category("cp", "0123"), number("trestbps", 0, 300),
        number("chol", 0, 1000), Variable("fbs", "fbs", "boolean"), category("restecg", "012"), number("thalach", 40, 250),
        Variable("exang", "exang", "boolean"), number("oldpeak", -5, 10), Variable("disease", "disease", "boolean"),
    )  # fmt: skip
    options = {"model": {"kind": "logistic"}, "rounds": 30, "batch_size": 16, "learning_rate": 0.05, "local_epochs": 1}
    formula = "disease ~ age + sex + cp + trestbps + chol + fbs + restecg + thalach + exang + oldpeak"
    return Data(
        "heart",
        frame[[*(v.name for v in variables), "site"]],
        variables,
        formula,
        HOSPITALS,
        finish(options, 0.34),
        methods(8, 3),
    )


def finish(options: Mapping[str, Any], holdout: float) -> dict[str, Any]:
    """Evaluated once, at the end; the histogram is not needed for accuracy."""
    return {**options, "holdout": holdout, "evaluate_every": int(options["rounds"]), "bins": 0}


def methods(hidden: int, buffer: int) -> dict[str, dict[str, Any]]:
    """What each method adds to the options. Personalised layers need a model with a body and a head. The last three are asked
    of sites that permit their own totals, and robust means of sites that permit single replies."""
    return {
        "fedavg": {},
        "fedprox": {"mu": 0.05},
        "fedopt": {"optimiser": "adam", "server_rate": 0.05},
        "scaffold": {},
        "personalised": {"model": {"kind": "mlp", "hidden": [hidden]}},
        "cyclic": {},
        "fedbuff": {"buffer": buffer, "site_totals": "needed"},
        "robust": {"rule": "median"},
    }


# ---- the pooled twin ------------------------------------------------------------------------------------------------
def tables_of(data: Data) -> tuple[Table, ...]:
    """Each site's rows as its node would hold them; every row is a person."""
    out = []
    for site in data.sites:
        rows = data.frame[data.frame.site == site]
        columns = {v.name: rows[v.name].to_numpy(dtype=np.float64) for v in data.variables}
        out.append(Table(site, data.dictionary, columns, np.arange(len(rows))))
    return tuple(out)


def setting_for(data: Data, seed: int) -> Setting:
    return Setting(data.dictionary, data.sites, 5, 10_000, seed)


def pooled_accuracy(data: Data, analysis: Analysis, seed: int, tables: Sequence[Table]) -> float:
    """Gradient descent on all rows at one place, as many epochs as all rounds have, judged on the persons held out."""
    spec = method(analysis.method).parse(analysis, setting_for(data, seed))
    (count,) = next(method(analysis.method).rounds(spec))
    found = aggregate(count, tables, {}, 0, len(tables), wide=False)
    fit = framed(spec, facts(found, count, spec.setting), 0, 0).fit
    parts = [problem(t, fit) for t in tables]
    model = parts[0][0]
    train, kept = joined([p[1] for p in parts]), joined([p[2] for p in parts])
    weights, _ = descend(
        model, named(first_weights(model, seed), model.shapes), train, epochs=spec.rounds * spec.local_epochs,
        batch_size=spec.batch_size, rate=spec.learning_rate, rng=chance(seed, "pooled", 0), pull=Pull(),
    )  # fmt: skip
    told = judged(model, weights, kept, 0)
    return int(told["right"]) / int(told["rows"])


def joined(parts: Sequence[Part]) -> Part:
    """All sites' rows in one place; persons stay apart."""
    person = np.concatenate([p.person + 10_000 * i for i, p in enumerate(parts)])
    return Part(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]), person)


# ---- the method itself ----------------------------------------------------------------------------------------------
def plain_accuracy(data: Data, analysis: Analysis, seed: int, tables: Sequence[Table]) -> float:
    """The method's rounds, added up in the ring without masks."""
    chosen = method(analysis.method)
    generator = chosen.rounds(chosen.parse(analysis, setting_for(data, seed)))
    sent: Any = None
    states: dict[Any, Any] = {}
    while True:
        try:
            question = generator.send(sent)
        except StopIteration as done:
            return float(done.value.facts["accuracy"])
        if isinstance(question, Snapshot):
            sent = None
            continue
        wide = any(f.kind != "update" for s in question for f in s.fields)
        sent = tuple(aggregate(s, tables, states, i, len(tables), wide=wide) for i, s in enumerate(question))


def aggregate(
    question: Sum, tables: Sequence[Table], states: dict[Any, Any], place: int, sites: int, *, wide: bool
) -> Aggregate:
    """The total that the secure sum would open."""
    fields = (*question.fields, *((Field("wide", "count", 1.0),) if wide else ()))
    total: Any = None
    for table in tables:
        key = (table.site, place, question.step.identity)
        more = {"state": states.get(key)} if question.step.keeps_state else {}
        answer = dict(question.step(table, **question.arguments, **more))
        states[key] = answer.pop(STATE, None)
        packed = pack({**answer, **({"wide": np.asarray(0)} if wide else {})}, fields, sites)
        if total is None:
            total = packed
        else:
            add_into(total, packed, ring_for(fields))
    opened = unpack(total, fields, sites)
    opened.pop("wide", None)
    shown = screen(opened, question.fields, 5)
    return Aggregate({n: read_only(v) for n, v in shown.items()}, tuple(t.site for t in tables))


def secure_accuracies(data: Data, seed: int) -> dict[str, float]:
    """All methods through the real thing: signed study, approvals, site folders, gates, masks."""
    from tempfile import TemporaryDirectory

    from examples.consortium import prepared
    from fivefold.coordinator import session
    from fivefold.engines.concurrent import ConcurrentEngine
    from fivefold.engines.local import local_nodes

    with TemporaryDirectory() as folder:
        out = Path(folder) / data.name
        gathered = {"steps": ["robust.local_update/1"]} if "robust" in data.methods else {}
        signed = prepared(out, data.name, data.frame, data.variables, data.analyses(), seed=seed, policy=gathered)
        engine = ConcurrentEngine(local_nodes(out / "sites", data.sites))
        done = session.run(signed, engine, out / "run", tell=lambda _: None, engine_name="local", resume=False)
        engine.close()
        found = {}
        for name, result in done.results.items():
            if not isinstance(result, Result):
                raise SystemExit(f"{data.name}, {name}: {result.message}")
            found[name] = float(str(result.facts["accuracy"]))
        return found


# ---- the table ------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one data set: accuracies by seed, federated and pooled."""

    data: str
    method: str
    federated: tuple[float, ...]
    pooled: tuple[float, ...]

    @property
    def difference(self) -> tuple[float, float, float]:
        """Mean of the paired differences (federated - pooled) with its 95 % interval (Student's t)."""
        d = np.array(self.federated) - np.array(self.pooled)
        half = 2.776 * float(d.std(ddof=1)) / math.sqrt(len(d)) if len(d) == 5 else math.nan
        return float(d.mean()), float(d.mean()) - half, float(d.mean()) + half

    @property
    def within(self) -> bool:
        """The federated mean lies within the range of the twin's seeds, or above it."""
        return float(np.mean(self.federated)) >= min(self.pooled)

    def line(self) -> str:
        mean, low, high = self.difference
        cells = [f"{np.mean(a):.3f} ± {np.std(a, ddof=1):.3f}" for a in (self.federated, self.pooled)]
        apart = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        said = "yes" if self.within else "NO"
        return f"{self.data:8} {self.method:13} {cells[0]:>15} {cells[1]:>15}   {apart}   {said}"


HEADING = f"{'data':8} {'method':13} {'federated':>15} {'pooled':>15}   difference (95 % interval)   within the spread"


def compare(data: Data, *, secure: bool, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """One row for each method that can be added up in this way."""
    tables = tables_of(data)
    if not secure:
        data = dataclasses.replace(data, methods={m: more for m, more in data.methods.items() if m not in LIVING})
    federated: dict[str, list[float]] = {m: [] for m in data.methods}
    pooled: dict[str, list[float]] = {m: [] for m in data.methods}
    twins: dict[str, float] = {}  # methods with the same model and steps share a twin
    for seed in seeds:
        found = secure_accuracies(data, seed) if secure else {}
        for analysis in data.analyses():
            name = analysis.method
            federated[name].append(found[name] if secure else plain_accuracy(data, analysis, seed, tables))
            same = repr(
                (seed, *(analysis.options[k] for k in ("model", "rounds", "local_epochs", "batch_size", "learning_rate")))
            )
            if same not in twins:
                twins[same] = pooled_accuracy(data, analysis, seed, tables)
            pooled[name].append(twins[same])
    return [Row(data.name, m, tuple(federated[m]), tuple(pooled[m])) for m in data.methods]


def main(arguments: Sequence[str]) -> int:
    known = {"breast": breast, "digits": digits, "images": images, "heart": heart}
    wanted = [a for a in arguments if a != "--plain"] or list(known)
    if not set(wanted) <= set(known):
        print(__doc__)
        return 2
    secure = "--plain" not in arguments
    print(
        f"Accuracy on persons held out, mean ± standard deviation over {len(SEEDS)} seeds; "
        + ("secure sum" if secure else "plain sums")
    )
    print(HEADING)
    every: list[Row] = []
    for name in wanted:
        data = known[name]()
        if data is None:
            print(f"{name:8} skipped: FIVEFOLD_SHARED names no folder with data/heart")
            continue
        for row in compare(data, secure=secure):
            print(row.line(), flush=True)
            every.append(row)
    return 0 if all(r.within for r in every) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
