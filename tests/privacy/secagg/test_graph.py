"""Large studies: Merkle proofs, private draws, and degrees whose tails are checked against scipy."""

from __future__ import annotations

import math
import os
from collections import Counter
from itertools import combinations

import pytest

from fivefold.errors import MessageMalformed, ProtocolViolation, StudyInvalid
from fivefold.privacy.secagg.graph import (
    check_merkle,
    draw_neighbours,
    is_complete,
    merkle_proof,
    merkle_root,
    neighbourhood,
    tail,
)


def test_complete_up_to_128() -> None:
    assert is_complete(128)
    assert not is_complete(129)


def test_tail_is_the_hypergeometric_one() -> None:
    from scipy.stats import hypergeom

    for population, marked, drawn in ((50, 10, 12), (999, 100, 60), (20, 20, 5), (20, 0, 5)):
        for least in range(drawn + 2):
            expected = float(hypergeom.sf(least - 1, population, marked, drawn))
            assert float(tail(population, marked, drawn, least)) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("active", [True, False])
def test_a_neighbourhood_keeps_its_promises(active: bool) -> None:
    n, rounds, failure = 1000, 100, 80
    graph = neighbourhood(n, colluding=0.1, dropping=0.05, rounds=rounds, active=active)
    limit = 2.0**-failure / (n * rounds)
    reach = 2 * graph.threshold - graph.degree if active else graph.threshold
    assert float(tail(n - 1, 100, graph.degree, reach)) <= limit
    assert float(tail(n - 1, 50, graph.degree, graph.degree - graph.threshold + 1)) <= limit
    assert graph.threshold <= graph.degree < n
    # A somewhat smaller degree would not do: the search did not stop early.
    smaller = graph.degree * 8 // 10
    best = min(
        max(
            float(tail(n - 1, 100, smaller, 2 * t - smaller if active else t)),
            float(tail(n - 1, 50, smaller, smaller - t + 1)),
        )
        for t in range(1, smaller + 1)
    )
    assert best > limit


def test_more_rounds_and_more_colluders_need_more_neighbours() -> None:
    base = neighbourhood(500, colluding=0.1, dropping=0.05, rounds=10).degree
    assert neighbourhood(500, colluding=0.2, dropping=0.05, rounds=10).degree > base
    assert neighbourhood(500, colluding=0.1, dropping=0.05, rounds=10**6).degree >= base
    assert neighbourhood(500, colluding=0.1, dropping=0.05, rounds=10, active=False).degree < base


@pytest.mark.parametrize(
    ("n", "colluding", "dropping"), [(100, 0.1, 0.1), (1000, 0.6, 0.3), (1000, 0.5, 0.5), (1000, -0.1, 0.1), (130, 0.33, 0.36)]
)
def test_graphs_that_cannot_be(n: int, colluding: float, dropping: float) -> None:
    with pytest.raises(StudyInvalid) as caught:
        neighbourhood(n, colluding=colluding, dropping=dropping, rounds=10)
    assert caught.value.hint


def test_draws_are_distinct_others_and_every_set_is_as_likely() -> None:
    """All choices of the randomness, once each: every pair of the four others comes up equally often."""
    counts: Counter[tuple[int, ...]] = Counter()
    for first in range(3):
        for second in range(4):
            numbers = iter((first, second))
            counts[draw_neighbours(2, 5, 2, lambda m, numbers=numbers: next(numbers) % m)] += 1
    assert counts == Counter(dict.fromkeys(combinations((0, 1, 3, 4), 2), 2))
    drawn = draw_neighbours(7, 200, 60)
    assert len(set(drawn)) == 60
    assert 7 not in drawn
    assert drawn != draw_neighbours(7, 200, 60)
    assert draw_neighbours(0, 3, 2) == (1, 2)
    with pytest.raises(ValueError, match="fewer"):
        draw_neighbours(0, 3, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_every_leaf_is_proved_and_no_other(count: int) -> None:
    leaves = [os.urandom(8) for _ in range(count)]
    root = merkle_root(leaves)
    for i, leaf in enumerate(leaves):
        proof = merkle_proof(leaves, i)
        assert len(proof) <= math.ceil(math.log2(count)) if count > 1 else not proof
        check_merkle(root, leaf, i, count, proof)
        with pytest.raises(ProtocolViolation):
            check_merkle(root, leaf + b"!", i, count, proof)
        with pytest.raises(ProtocolViolation):
            check_merkle(root, leaf, i, count, (*proof, bytes(32)))
        if proof:
            with pytest.raises(ProtocolViolation):
                check_merkle(root, leaf, i, count, proof[:-1])
            with pytest.raises(ProtocolViolation):
                check_merkle(root, leaf, i ^ 1 if i ^ 1 < count else i - 1, count, proof)


def test_root_of_rfc_6962_and_malformed_proofs() -> None:
    """The vectors of certificate transparency's reference tree."""
    inputs = [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43"]
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle_root(inputs[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(inputs[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    with pytest.raises(MessageMalformed):
        check_merkle(bytes(32), b"x", 2, 2, ())
    with pytest.raises(MessageMalformed):
        check_merkle(bytes(32), b"x", 0, 2, (b"short",))
    with pytest.raises(ValueError, match="leaf"):
        merkle_proof([b"a"], 1)
