"""One model's way to its maximum: step, halving, the end, and what makes an end impossible. Pure values, no rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.design import Column
from fivefold.algorithms.numerics import Dependence, inverse_information
from fivefold.errors import Collinear, Separation

Floats = npt.NDArray[np.float64]

RISE = 1e-9
"""A deviance may rise by this share before the step is halved: below it rounding decides."""

FLAT, WALK = 1e-4, 0.1
"""Where a step promises a deviance lower by less than FLAT and still moves a coefficient by more than WALK (per standard
deviation of its column), the likelihood has no maximum: a standard error would be above 10."""


@dataclass(frozen=True)
class Fit:
    """`beta` is where to evaluate next, or the estimate once `converged`; `best`, `deviance` and `inverse` (of the information)
    belong to the last point accepted. `drift` is the last step where the likelihood has no maximum; `dependence` a column that
    is a combination of others."""

    beta: Floats
    best: Floats | None = None
    deviance: float = float("inf")
    inverse: Floats | None = None
    converged: bool = False
    drift: Floats | None = None
    dependence: Dependence | None = None
    evaluated: int = 0
    left_out: bool = False

    @property
    def failed(self) -> bool:
        """No estimate will come of it."""
        return self.left_out or self.drift is not None or self.dependence is not None

    def elsewhere(self) -> Fit:
        """The same point over other sites: what was known of the deviance there no longer holds."""
        return Fit(self.beta, evaluated=self.evaluated)


def advance(fit: Fit, score: Floats, information: Floats, deviance: float, tolerance: float, *, bounded: bool) -> Fit:
    """The next state after an evaluation at `fit.beta`. `bounded`: the likelihood always has a maximum (Gaussian).

    Converged when every step is below `tolerance` standard errors; that step is still taken.
    """
    seen = fit.evaluated + 1
    if fit.best is not None and not deviance <= fit.deviance + RISE * (abs(fit.deviance) + 1e-3):
        return replace(fit, beta=(fit.beta + fit.best) / 2, evaluated=seen)
    inverse = inverse_information(information)
    if isinstance(inverse, Dependence):
        if fit.inverse is not None and not bounded:  # it was regular at the start: a coefficient has run away
            return replace(fit, drift=fit.beta - (fit.best if fit.best is not None else 0.0), evaluated=seen)
        return replace(fit, dependence=inverse, evaluated=seen)
    step = inverse @ score
    converged = bool(np.all(np.abs(step) <= tolerance * np.sqrt(np.diag(inverse))))
    drift = None
    if not bounded and not converged and float(score @ step) < FLAT and np.abs(step).max() > WALK:
        drift = step
    return Fit(fit.beta + step, fit.beta, deviance, inverse, converged, drift, None, seen)


def refuse(fit: Fit, columns: Sequence[Column], formula: str) -> None:
    """Raise `Collinear` or `Separation`, naming the variable, where the fit has failed."""
    if fit.dependence is not None:
        raise _collinear(fit.dependence, columns, formula)
    drift = fit.drift
    if drift is not None:
        named = [i for i, c in enumerate(columns) if c.variables] or list(range(len(columns)))
        column = columns[max(named, key=lambda i: abs(float(drift[i])))]
        variable = column.variables[0] if column.variables else ""
        raise Separation(
            f"the coefficient of {column.name!r} has no finite estimate: {' and '.join(map(repr, column.variables)) or 'it'} "
            f"separates the outcomes in `{formula}`",
            variable=variable,
        )


def _collinear(found: Dependence, columns: Sequence[Column], formula: str) -> Collinear:
    column = columns[found.index]
    variable = column.variables[-1] if column.variables else ""
    others = [columns[i].name for i in found.on if columns[i].variables]
    if not others:
        return Collinear(f"{column.name!r} has one value in all rows of `{formula}`", variable=variable)
    return Collinear(f"{column.name!r} is determined by {', '.join(map(repr, others))} in `{formula}`", variable=variable)
