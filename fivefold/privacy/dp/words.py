"""What an (ε, δ) means, in plain words: what stands with every figure and table of a study with differential privacy."""

from __future__ import annotations

import math
from typing import Literal

Unit = Literal["person", "site"]
NEIGHBOURS = {
    "person": "all rows of one person at a site, there or not",
    "site": "all rows of one site, there or not",
}
LANDMARKS = (1.0, 3.0, 10.0)


def short(unit: Unit, epsilon: float, delta: float) -> str:
    """The promise in one line, with unit and neighbour relation."""
    return f"ε = {up(epsilon)} at δ = {delta:g} per {unit} ({NEIGHBOURS[unit]})"


def certainty(epsilon: float) -> float:
    """The most by which somebody who held both for equally likely (there, or not there) can come to believe one of them after
    seeing every answer, but for the chance δ: e^ε/(1 + e^ε)."""
    return 1 / (1 + math.exp(-epsilon))


def meaning(epsilon: float) -> str:
    """One sentence for one ε."""
    sure = certainty(epsilon)
    shown = f"{100 * sure:.0f} %" if sure < 0.99 else f"{100 * sure:.3f} %".replace("100.000 %", "more than 99.999 %")
    return f"ε = {up(epsilon)}: a guess of 1 in 2 becomes {shown} certain at most"


def landmarks() -> tuple[str, ...]:
    """What ε of 1, 3 and 10 mean."""
    strength = ("strong", "moderate", "weak: it bounds what a determined attacker learns about few persons only")
    return tuple(f"{meaning(e)} ({s})" for e, s in zip(LANDMARKS, strength, strict=True))


def sentences(unit: Unit, epsilon: float, delta: float, cap: float) -> tuple[str, ...]:
    """The promise of a whole study, for people."""
    whose = "a person's rows" if unit == "person" else "a site's rows"
    return (
        f"All answers of this run together: {short(unit, epsilon, delta)}. Over all its runs the study may cost ε = {cap:g}.",
        f"Whoever sees them all, whatever else they know, and guesses whether {whose} are among the data: {meaning(epsilon)}; "
        f"this fails with a probability of at most {delta:g}.",
        f"For comparison, {'; '.join(landmarks())}.",
    )


def up(epsilon: float) -> str:
    """Three digits, rounded up: a promise is never told smaller than it is."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        return f"{epsilon:g}"
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    return f"{math.ceil(epsilon / unit - 1e-9) * unit:.3g}"
