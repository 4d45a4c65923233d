"""An airlock decision on a table of a million cells: suppression, all checks, the differencing verdict, the proposal's
digest."""

from __future__ import annotations

import json
import time

import numpy as np

from fivefold.disclosure.suppression import bounds
from fivefold.governance.output_checks import propose
from fivefold.protocol.objections import Objections
from fivefold.protocol.results import Result, ResultTable
from fivefold.results.tables import plain_of
from fivefold.study.definition import (
    Agreements,
    Analysis,
    Cohort,
    Envelope,
    Lead,
    Outputs,
    Privacy,
    Study,
    StudySite,
)
from fivefold.study.dictionary import Dictionary, Variable

SIDE = 1000
NONE = Objections(5)
TARGETS = {"decision_s": "< 10"}


def study_of(side: int) -> Study:
    """A study with one cross table of side × side cells."""
    codes = {str(i): f"level {i}" for i in range(side)}
    names = ("region", "diagnosis")
    dictionary = Dictionary("large", "1", {n: Variable(n, n, "category", codes=codes) for n in names})
    analysis = Analysis("cross", "statistics", variables=names, options={"tables": (names,)})
    sites = tuple(StudySite(f"site-{i}", f"{i:064x}") for i in range(1, 6))
    return Study(
        "A large table", "How many?", Lead("Lead", "Office", "0" * 64), sites, dictionary, "person", Cohort(),
        dict.fromkeys(names, "counted"), (), (analysis,), Envelope(), Privacy(minimum_persons=10), Outputs(),
        Agreements("none", "a benchmark", "2099-12-31"),
    )  # fmt: skip


def result_of(study: Study, counts: np.ndarray) -> Result:
    levels = study.dictionary["region"].levels
    cells = iter(counts.ravel().tolist())
    rows = tuple((a, b, next(cells)) for a in levels for b in levels)
    table = ResultTable("region by diagnosis", ("region", "diagnosis", "persons"), rows)
    total = int(counts.sum())
    facts = {"persons": total, "rows": total, "missing_region": 0, "missing_diagnosis": 0}
    return Result("statistics", {"region_by_diagnosis": table}, facts, tuple(s.name for s in study.sites))


def main() -> None:
    rng = np.random.default_rng(7)
    study = study_of(SIDE)
    counts = rng.poisson(20, size=(SIDE, SIDE))
    result = result_of(study, counts)
    began, worked = time.perf_counter(), time.process_time()
    made = propose(study, {"cross": result}, "suppressed", objections=NONE)
    plain = json.dumps({n: plain_of(r) for n, r in made.results.items()}, sort_keys=True).encode()
    seconds, work = time.perf_counter() - began, time.process_time() - worked

    shown = made.results["cross"].tables["region_by_diagnosis"].column("persons")
    gone = np.array([v is None for v in shown]).reshape(counts.shape)
    small = (counts > 0) & (counts < 10)
    assert not (small & ~gone).any()
    corner = np.ix_(range(25), range(25))  # a linear programme on a part, with all margins: what it cannot tell there
    widths = [high - low for low, high in bounds(counts[corner], gone[corner]).values()] if gone[corner].any() else []
    began = time.perf_counter()
    read = sum(len(line) for line in json.dumps(plain_of(result)).splitlines())  # what only writing the table down costs
    written = time.perf_counter() - began
    print(f"{SIDE * SIDE:,} cells, {int(small.sum()):,} small ones, {int(gone.sum()):,} hidden, {made.report.status}")
    print(f"decision in {seconds:.2f} s; {len(plain):,} bytes under the digest; {len(widths)} hidden cells in one corner")
    figures = {
        "decision_s": seconds,
        "decision_cpu_s": work,
        "of_writing_it_down": seconds / written,
        "bytes": read,
        "hidden_share": float(gone.mean()),
        "small_share": float(small.mean()),
    }
    print(json.dumps({"name": "airlock", "targets": TARGETS} | figures))


if __name__ == "__main__":
    main()
