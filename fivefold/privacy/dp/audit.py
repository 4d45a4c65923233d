"""An empirical audit of a privacy promise: a lower bound on ε from what a distinguisher achieved.

Somebody runs a mechanism many times with a canary and many times without, and guesses each time which it was. Under (ε, δ)-
differential privacy both P(hit | there) ≤ e^ε·P(hit | not there) + δ and its mirror image hold. Exact confidence bounds on the
two rates (Clopper & Pearson, 1934) turn the counts into an ε that the mechanism cannot be below (Jagielski, Ullman & Oprea,
2020, "Auditing differentially private machine learning"). A bound above the promise disproves the promise; one below proves
nothing.
"""

from __future__ import annotations

import math


def epsilon_lower_bound(
    hits: int, trials: int, false_hits: int, false_trials: int, delta: float, confidence: float = 0.95
) -> float:
    """The ε that the mechanism has at least, with the given confidence; 0 where the counts show nothing.

    `hits` of `trials` runs with the canary were taken for such, and `false_hits` of `false_trials` without. The rule that
    guesses must have been fixed before these runs. Raises `ValueError` for counts or probabilities that make no sense.
    """
    if not (0 <= hits <= trials and 0 <= false_hits <= false_trials and trials > 0 and false_trials > 0):
        raise ValueError("hits lie between 0 and the trials, of which there is at least one")
    if not (0 <= delta < 1 and 0 < confidence < 1):
        raise ValueError("δ lies in [0, 1), the confidence in (0, 1)")
    each = (1 - confidence) / 2  # both bounds hold together with the confidence
    there, _ = clopper_pearson(hits, trials, each)
    _, absent = clopper_pearson(false_hits, false_trials, each)
    return max(0.0, _ratio(there - delta, absent), _ratio(1 - absent - delta, 1 - there))


def clopper_pearson(hits: int, trials: int, error: float) -> tuple[float, float]:
    """(lower, upper) bound of a rate; each is wrong with a probability of at most `error` (Clopper & Pearson, 1934)."""
    from scipy.stats import beta

    low = float(beta.ppf(error, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - error, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def _ratio(more: float, less: float) -> float:
    return math.log(more / less) if more > 0 and less > 0 else 0.0
