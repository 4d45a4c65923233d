"""Do two runs with differential privacy agree, but for their noise?

Each run draws noise of its own, so no total is the same twice. Where both asked the very same question, the difference of a
total's two values is noise alone: of variance σ₁² + σ₂², known from the study and the sites that answered. A number is outside
where it is less likely than `ALPHA` over all numbers compared (two-sided, Bonferroni). A question that follows from noisy
aggregates is another one in the other run, and is left out: it says nothing of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fivefold.privacy.dp.shares import deviation
from fivefold.records.sealed_journal import Aggregate
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.study.definition import Analysis, Study

ALPHA = 1e-6
"""How often two runs on the same rows are called different by chance."""


@dataclass(frozen=True)
class Agreement:
    """`rounds` and `numbers` were compared, `others` are rounds that the two runs did not ask alike; `largest` is the largest
    difference in deviations of its noise, `bound` what it may be; `difference` names the first number beyond, in words."""

    rounds: int
    numbers: int
    others: int
    largest: float
    bound: float
    difference: str = ""


def agreement(
    study: Study, then: Sequence[Aggregate], now: Sequence[Aggregate], analyses: tuple[Analysis, ...] = ()
) -> Agreement:
    """Compare the totals of two runs of one noisy study, round by round; `then` is replayed, for the noise of its fields."""
    cursor, gaps, others = Cursor(study, analyses), list[tuple[str, float]](), 0
    rounds = 0
    for a, b in zip(then, now, strict=False):
        asked = cursor.open
        if asked is None or asked.round != a.round:
            break
        if a.question == b.question and not (a.ended or b.ended):
            rounds += 1
            mine, theirs = asked.join(a.totals), asked.join(b.totals)
            for field in asked.fields:
                if field.noise is None:
                    continue
                spread = math.hypot(deviation(field.noise, len(a.sites)), deviation(field.noise, len(b.sites)))
                off = np.abs(np.ravel(mine[field.name] - theirs[field.name])) / spread
                gaps += [(f"round {a.round}: the total {field.name!r}", float(z)) for z in off]
        else:
            others += 1
        cursor.feed(Outcome(a.totals, a.sites, a.dropped, a.ended))
    cursor.close()
    others += abs(len(then) - len(now))
    bound = within(len(gaps))
    beyond = next((f"{name} differs by {z:.1f} deviations of its noise" for name, z in gaps if not z <= bound), "")
    return Agreement(rounds, len(gaps), others, max((z for _, z in gaps), default=0.0), bound, beyond)


def within(numbers: int) -> float:
    """Deviations that the largest of so many differences stays below, but for `ALPHA`."""
    from scipy.stats import norm

    return float(norm.isf(ALPHA / (2 * max(numbers, 1))))
