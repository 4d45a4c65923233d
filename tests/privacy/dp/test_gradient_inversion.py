"""Rows computed back from gradients: exactly from unprotected updates, and not from the run that `study threats` recommends.

Whoever sees the gradient of a dense layer and of its bias for one row divides one by the other and has the row (Phong et al.,
2018; Geiping et al., NeurIPS 2020, proposition 3.1). For a sum over many rows a coordinator sends weights made for it: neurons
that differ in their threshold alone, so that the difference of two neighbours' gradients is that of the rows between the two
thresholds, often a single one (Fowl et al., ICLR 2022). Masks do not help against that; noise does. Real digits, three sites.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from fivefold.algorithms.training_rows import Part, Pull, descend, person_gradients
from fivefold.governance.threats import RECOMMENDED_DELTA, RECOMMENDED_EPSILON
from fivefold.models.model import ModelSpec, Weights, build, flat, named
from fivefold.privacy.dp.accounting import multiplier_for
from fivefold.privacy.dp.rounding import nearest
from fivefold.privacy.dp.shares import Sharing, noisy, share_of
from fivefold.privacy.fixed_point import pack, unpack
from fivefold.protocol.questions import Array, Field

PERSONS, SITES, NEURONS, ROUNDS, CLIP = 60, 3, 400, 20, 1.0
MODEL = build(ModelSpec("mlp", "classes", 64, 10, hidden=(NEURONS,)))
SIZE = flat(MODEL.initial(np.random.default_rng(0))).size


def digits() -> tuple[Part, Array]:
    """The persons of the study, and the pixels of others whom the attacker knows."""
    from sklearn.datasets import load_digits

    pixels, label = load_digits(return_X_y=True)
    order = np.random.default_rng(2).permutation(len(label))
    x, y = pixels[order] / 16, label[order].astype(np.float64)
    return Part(x[:PERSONS], y[:PERSONS], np.arange(PERSONS)), x[PERSONS:]


def made_for_it(known: Array) -> Weights:
    """Every neuron sees the brightness of a row, each above a threshold of its own."""
    thresholds = np.quantile(known.mean(axis=1), (np.arange(NEURONS) + 0.5) / NEURONS)
    behind = np.tile(0.01 * np.linspace(-1, 1, 10), (NEURONS, 1))
    return {"layer1": np.full((64, NEURONS), 1 / 64), "bias1": -thresholds, "layer2": behind, "bias2": np.zeros(10)}


def update(weights: Weights, rows: Part) -> Array:
    """A site's plain update: one step over all its rows, times their number."""
    after, _ = descend(
        MODEL, weights, rows, epochs=1, batch_size=0, rate=1.0, rng=np.random.default_rng(0), pull=Pull()
    )  # fmt: skip
    return (flat(after) - flat(weights)) * len(rows) / PERSONS


def summed(answers: list[Array]) -> Array:
    """The sum as it comes out of the ring of updates."""
    field = Field("update", "update", 1.0, (SIZE,))
    return unpack(reduce(np.add, [pack({"update": a}, (field,), SITES) for a in answers]), (field,), SITES, SITES)["update"]


def noised(weights: Weights, sites: list[Part]) -> Array:
    """The sum of the recommended run: each person's gradient clipped, each site's share of the noise added."""
    field = Field("update", "update", CLIP * PERSONS, (SIZE,), sensitivity=CLIP)
    multiplier = multiplier_for(ROUNDS, RECOMMENDED_EPSILON, RECOMMENDED_DELTA)
    noise = noisy((field,), Sharing(multiplier, "person", SITES, 0, 0))[0].noise
    assert noise is not None
    total = np.zeros(SIZE)
    for i, rows in enumerate(sites):
        steps = nearest(np.ldexp(-person_gradients(MODEL, weights, rows, CLIP)[0], noise.exponent))
        total += np.ldexp(steps + share_of(noise, SIZE, bytes([i, 5] * 16)), -noise.exponent)
    return total


def recovered(total: Array, rows: Part, *, between: bool) -> float:
    """The share of the persons whose row comes back within 5 %: gradients of the first layer over those of its bias."""
    found = named(total, MODEL.shapes)
    top, bottom = found["layer1"], found["bias1"]
    if between:
        top, bottom = -np.diff(top, axis=1), -np.diff(bottom)
    seen = np.abs(bottom) > 1e-9
    guesses = (top[:, seen] / bottom[seen]).T
    hits = [np.min(np.linalg.norm(guesses - x, axis=1), initial=np.inf) < 0.05 * np.linalg.norm(x) for x in rows.x]
    return float(np.mean(hits))


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    rows, known = digits()
    sites = [rows.take(at) for at in np.array_split(np.arange(PERSONS), SITES)]
    usual = named(flat(MODEL.initial(np.random.default_rng(0))), MODEL.shapes)
    trap = made_for_it(known)
    clipped = [-person_gradients(MODEL, trap, s, CLIP)[0] / PERSONS for s in sites]
    alone = [recovered(update(usual, one), one, between=False) for one in (rows.take(np.array([i])) for i in range(PERSONS))]
    found = {
        "one person's plain update": float(np.mean(alone)),
        "masked sum, the study's weights": recovered(summed([update(usual, s) for s in sites]), rows, between=False),
        "masked sum, weights made for it": recovered(summed([update(trap, s) for s in sites]), rows, between=True),
        "the same, clipped, no noise": recovered(summed(clipped), rows, between=True),
        "recommended, weights made for it": recovered(noised(trap, sites), rows, between=True),
        "recommended, the study's weights": recovered(noised(usual, sites), rows, between=False),
    }
    for name, share in found.items():
        print(f"| {name} | {100 * share:.0f} % |")
    return found


def test_rows_come_back_from_unprotected_updates(figures: dict[str, float]) -> None:
    assert figures["one person's plain update"] == 1.0
    assert figures["masked sum, weights made for it"] > 0.5
    assert figures["the same, clipped, no noise"] > 0.5
    # A wide layer over few persons has neurons that only one of them wakes, whatever the weights.
    assert 0 < figures["masked sum, the study's weights"] < 0.5


def test_no_row_comes_back_from_the_recommended_run(figures: dict[str, float]) -> None:
    assert figures["recommended, weights made for it"] == 0.0
    assert figures["recommended, the study's weights"] == 0.0
