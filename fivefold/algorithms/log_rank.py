"""The log-rank test of k groups, stratified or not (Mantel 1966; Peto and Peto 1972; Klein and Moeschberger 2003, 7.3, 7.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LogRank:
    """Observed and expected events by group (k,), chi-squared with its degrees of freedom, and the p-value."""

    observed: Floats
    expected: Floats
    statistic: float
    freedom: int
    p_value: float


def log_rank_sums(events: Floats, at_risk: Floats) -> tuple[Floats, Floats, Floats]:
    """Observed (k,), expected (k,) and covariance (k, k) of observed − expected, summed over strata and times.

    `events` and `at_risk` have shape (strata, k, times). With d of n events, the hypergeometric covariance is
    d (n−d)/(n−1) · (δ_gh n_g/n − n_g n_h/n²).
    """
    d, n = events.sum(axis=1), at_risk.sum(axis=1)
    some = (d > 0) & (n > 0)
    share = np.divide(at_risk, n[:, None, :], out=np.zeros_like(at_risk, dtype=float), where=some[:, None, :])
    expected = (share * d[:, None, :]).sum(axis=(0, 2))
    factor = np.where(some & (n > 1), d * (n - d) / np.maximum(n - 1, 1), 0.0)
    covariance = np.diag((share * factor[:, None, :]).sum(axis=(0, 2)))
    covariance -= np.einsum("sgt,sht,st->gh", share, share, factor)
    return events.sum(axis=(0, 2)).astype(float), expected, covariance


def log_rank(observed: Floats, expected: Floats, covariance: Floats) -> LogRank:
    """The test from the sums; a group that is never at risk costs no degree of freedom."""
    from scipy.stats import chi2

    groups = np.flatnonzero(np.diag(covariance) > 0)
    freedom = max(len(groups) - 1, 0)
    if freedom == 0:
        return LogRank(observed, expected, float("nan"), 0, float("nan"))
    kept = groups[:-1]
    difference = (observed - expected)[kept]
    statistic = float(difference @ np.linalg.pinv(covariance[np.ix_(kept, kept)]) @ difference)
    return LogRank(observed, expected, statistic, freedom, float(chi2.sf(statistic, freedom)))
