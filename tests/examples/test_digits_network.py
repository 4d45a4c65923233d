"""The digits example: ten sites train a network in PyTorch through the secure sum, and it reads what it has not seen."""

from __future__ import annotations

import dataclasses

from examples.accuracy import compare, images


def test_the_network_comes_near_its_pooled_twin_on_digits_that_it_has_not_seen() -> None:
    """A short training of one seed; `python -m examples.accuracy images` has five, and more rounds."""
    short = dataclasses.replace(images(), options={**images().options, "rounds": 6, "evaluate_every": 6})
    (row,) = compare(short, secure=False, seeds=(42,))
    print(f"federated {row.federated[0]:.3f}, pooled {row.pooled[0]:.3f}")
    assert row.pooled[0] > 0.9
    assert row.federated[0] > 0.6
