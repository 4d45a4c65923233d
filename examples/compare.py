"""Print a run's models beside the pooled fits: python -m examples.compare FOLDER

FOLDER is a run folder, or the consortium's: then its newest run is taken. The pooled fits see all rows at once, as no
coordinator ever does: lifelines' Cox model for lung, statsmodels' logistic regression for breast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fivefold.protocol.results import Result


class Line(NamedTuple):
    """A coefficient and its standard error, over sites and pooled."""

    term: str
    estimate: float
    error: float
    pooled_estimate: float
    pooled_error: float

    @property
    def difference(self) -> float:
        """The larger of the two relative differences."""
        return max(
            abs(self.estimate - self.pooled_estimate) / abs(self.pooled_estimate),
            abs(self.error - self.pooled_error) / abs(self.pooled_error),
        )


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    run = newest(Path(arguments[0]))
    if run is None:
        print(f"{arguments[0]} holds no run that has ended; run the study first.", file=sys.stderr)
        return 2
    from fivefold.results.write import read_results

    worst = 0.0
    for name, result in read_results(run).items():
        lines = compared(result, stratified="by-site" in name)
        if lines:
            print(page(name, result, lines))
            worst = max(worst, *(line.difference for line in lines))
    print(f"Largest relative difference of any coefficient or standard error: {worst:.1e}")
    print(f"\nThe run is in {run}: result.json, tables/, plots/, audit.jsonl, and ro-crate-preview.html to open in a browser.")
    return 0 if worst < 1e-6 else 1


def newest(folder: Path) -> Path | None:
    """The run folder itself, or the consortium's newest run that has ended."""
    if (folder / "result.json").exists():
        return folder
    ended = sorted(folder.glob("runs/*/result.json"), key=lambda f: f.stat().st_mtime)
    return ended[-1].parent if ended else None


def compared(result: Result, *, stratified: bool) -> list[Line]:
    """The coefficients of a model beside those of the pooled fit over the same sites; none for other methods."""
    if result.method == "cox":
        return beside(result, "coefficient", pooled_cox(result.sites, stratified=stratified))
    if result.method == "glm":
        return beside(result, "estimate", pooled_glm(result.sites))
    return []


def beside(result: Result, estimate: str, pooled: Sequence[tuple[float, float]]) -> list[Line]:
    table = result.tables["coefficients"]
    rows: Any = zip(table.column("term"), table.column(estimate), table.column("standard_error"), strict=True)
    return [Line(term, b, error, *fit) for (term, b, error), fit in zip(rows, pooled, strict=True)]


def pooled_cox(sites: Sequence[str], *, stratified: bool) -> list[tuple[float, float]]:
    """age, sex (female against male), ecog: log hazard ratio and its standard error."""
    from lifelines import CoxPHFitter

    from examples.lung.data import pooled

    frame, _ = pooled()
    frame = frame[frame.site.isin(sites)].dropna(subset=["ecog"]).assign(sex=lambda f: (f.sex == "f").astype(float))
    fit = CoxPHFitter().fit(
        frame[["time", "died", "age", "sex", "ecog", "site"]] if stratified else frame[["time", "died", "age", "sex", "ecog"]],
        "time",
        "died",
        strata=["site"] if stratified else None,
        fit_options={"precision": 1e-16, "r_precision": 1e-16},
    )
    return [(float(fit.params_[n]), float(fit.standard_errors_[n])) for n in ("age", "sex", "ecog")]


def pooled_glm(sites: Sequence[str]) -> list[tuple[float, float]]:
    """Intercept, radius, texture, symmetry: log odds ratio and its standard error."""
    import statsmodels.api as sm

    from examples.breast.data import pooled

    frame, _ = pooled()
    names = ["radius", "texture", "symmetry"]
    frame = frame[frame.site.isin(sites)].dropna(subset=["malignant", *names])
    fit = sm.GLM(frame.malignant, sm.add_constant(frame[names]), family=sm.families.Binomial()).fit(tol=1e-12)
    return [(float(b), float(e)) for b, e in zip(fit.params, fit.bse, strict=True)]


def page(name: str, result: Result, lines: Sequence[Line]) -> str:
    """The lines of a model, aligned, with the persons behind them."""
    peer = "lifelines" if result.method == "cox" else "statsmodels"
    counted = ", ".join(f"{result.facts[n]} {n}" for n in ("persons", "events") if n in result.facts)
    dropped = f"; dropped: {', '.join(result.dropped)}" if result.dropped else ""
    width = max(4, *(len(line.term) for line in lines))
    out = [
        f"{name}: {counted}, {len(result.sites)} sites{dropped}",
        "",
        f"  {'':{width}}   {'federated':^23}   {f'pooled ({peer})':^23}   relative",
        f"  {'term':{width}}   {'coefficient':>11} {'std. error':>11}   {'coefficient':>11} {'std. error':>11}   difference",
    ]
    for x in lines:
        out.append(
            f"  {x.term:{width}}   {x.estimate:11.7f} {x.error:11.7f}   {x.pooled_estimate:11.7f} {x.pooled_error:11.7f}"
            f"   {x.difference:10.1e}"
        )
    return "\n".join([*out, ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
