"""What a study's questions cost in privacy, before it is run and while it runs.

A question is one `Event` (`events.py`): a Gaussian of multiplier z, at integer orders α·1/(2z²), which is at least the Rényi
divergence of the discrete Gaussian (Canonne, Kamath & Steinke, 2020, Theorem 4), and the extra term of a sum of shares: the sum
of m discrete Gaussians is not one, but close. With shares of deviation s steps

    τ = 10·Σ_{i=1}^{m-1} exp(-2π²·s²·i/(i+1)),   extra = τ·d/4 for d numbers

in concentrated differential privacy (Kairouz, Liu & Steinke, 2021, Theorem 1, first of its two bounds). At 4 steps τ is below
10^-67. Curves of all questions add up, chosen one after the other as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fivefold.privacy.dp.events import Event, composed, curve, epsilon_of
from fivefold.privacy.dp.shares import LEAST
from fivefold.protocol.questions import Field

LARGEST_MULTIPLIER = 1e9


def tau(share: float, honest: int) -> float:
    """τ of Kairouz, Liu & Steinke (2021) for `honest` shares with a deviation of `share` steps each."""
    return 10 * math.fsum(math.exp(-2 * math.pi**2 * share**2 * i / (i + 1)) for i in range(1, honest))


def question_event(fields: Sequence[Field], multiplier: float, honest: int) -> Event:
    """What one answer to a question with these (noisy) fields costs. Raises `ValueError` where a field has no noise."""
    extra = 0.0
    if len(fields) == 1 and (own := fields[0].own) is not None:
        return Event("sampled_gaussian", multiplier, own.steps, 0.0, own.sampling)
    for f in fields:
        if f.noise is None:
            raise ValueError(f"field {f.name!r} has no noise")
        extra += f.size * tau(f.noise.share, honest) / 4
    return Event("discrete_gaussian", multiplier, 1, extra)


def foreseen(questions: int, multiplier: float, numbers: int = 1, honest: int = 2) -> Event:
    """All questions of a study before they are known: each of at most `numbers` numbers, with the coarsest grid admitted."""
    return Event("discrete_gaussian", multiplier, questions, numbers * tau(LEAST, honest) / 4)


def epsilon(events: Sequence[Event], delta: float) -> float:
    """The ε that these events come to at δ; 0 for none."""
    return epsilon_of(composed([curve(e) for e in events]), delta) if events else 0.0


Drawn = tuple[int, float]
"""So many noisy steps at each site, on persons of whom each is drawn with this probability (`noisy_steps.py`)."""


def spent(questions: int, multiplier: float, delta: float, drawn: Sequence[Drawn] = ()) -> float:
    """ε at δ of so many questions, and of the noisy steps beside them."""
    events = [foreseen(questions, multiplier)] if questions else []
    return epsilon([*events, *(Event("sampled_gaussian", multiplier, n, 0.0, q) for n, q in drawn)], delta)


def multiplier_for(questions: int, epsilon: float, delta: float, drawn: Sequence[Drawn] = ()) -> float:
    """The smallest noise multiplier (to four digits, rounded up) with which so many questions cost at most ε at δ, with the
    noisy steps beside them.

    Raises `ValueError` where none does, or for values that make no sense.
    """
    if questions + len(drawn) < 1 or not epsilon > 0:
        raise ValueError("at least one question, and an ε above 0")
    low, high = 0.0, 1.0
    while spent(questions, high, delta, drawn) > epsilon:
        low, high = high, 2 * high
        if high > LARGEST_MULTIPLIER:
            raise ValueError("no noise multiplier reaches this ε")
    for _ in range(60):
        middle = (low + high) / 2
        if spent(questions, middle, delta, drawn) <= epsilon:
            high = middle
        else:
            low = middle
    return _up(high)


def _up(value: float) -> float:
    """Four significant digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{math.ceil(value / unit) * unit:.12g}")
