"""The seed search: a mask whose generator has few states is found by trying them all.

Setting: a coordinator and all other neighbours of a site but one collude, which the threshold is there to allow. What hides the
site then is one mask. Where the 256 bits of its seed are folded to s bits before they reach the generator, 2^s trials find it.
The search is played here with both designs cut down to 2^16 seeds, so that it ends.
"""

from __future__ import annotations

import os

import numpy as np

from fivefold.privacy.secagg.masks import apply_masks
from fivefold.privacy.secagg.ring import RING32, zeros

BITS = 16
WIDTH = 8
GENERATOR = np.random.RandomState()


def mersenne_mask(seed: bytes, width: int = WIDTH) -> np.ndarray:
    """A mask as some secure sums make it: the seed folded word by word, then a Mersenne Twister. Here folded to 16 bits."""
    folded = 0
    for i in range(0, len(seed), BITS // 8):
        folded ^= int.from_bytes(seed[i : i + BITS // 8], "little")
    GENERATOR.seed(folded)  # the same as a new RandomState(folded), and thirty times faster
    return GENERATOR.randint(0, 1 << 32, width, dtype=np.uint32)


def our_mask(seed: bytes, width: int = WIDTH) -> np.ndarray:
    mask = zeros(width, RING32)
    apply_masks(mask, RING32, [(seed, 1)])
    return mask


def looks_plain(vector: np.ndarray) -> bool:
    """What an attacker knows of an update: it is small. A wrong mask leaves 32 random bits, so eight numbers decide."""
    return bool((vector < 1000).all())


def test_the_search_finds_a_mask_whose_seed_is_folded() -> None:
    update = np.arange(100, 100 + WIDTH, dtype=np.uint32)
    masked = update + mersenne_mask(os.urandom(32))  # all 256 bits are random, and it does not help
    found = [masked - mersenne_mask(guess.to_bytes(2, "little")) for guess in range(1 << BITS)]
    plain = [v for v in found if looks_plain(v)]
    assert len(plain) == 1
    assert np.array_equal(plain[0], update)


def test_the_search_works_on_this_design_too_if_its_seeds_are_few() -> None:
    """The control: the search itself is sound. Seeds that differ in 16 bits only are found here as well."""
    update = np.arange(100, 100 + WIDTH, dtype=np.uint32)
    secret = os.urandom(2)
    masked = update + our_mask(secret + bytes(30))
    plain = [v for guess in range(1 << BITS) if looks_plain(v := masked - our_mask(guess.to_bytes(2, "big") + bytes(30)))]
    assert len(plain) == 1
    assert np.array_equal(plain[0], update)


def test_no_part_of_a_seed_is_folded_away() -> None:
    """With a seed of 256 bits, the same search over any 16 of them finds nothing, whatever a fold would have made equal."""
    update = np.arange(100, 100 + WIDTH, dtype=np.uint32)
    seed = os.urandom(32)
    masked = update + our_mask(seed)
    folded = bytes(2)
    for i in range(0, 32, 2):
        folded = bytes(a ^ b for a, b in zip(folded, seed[i : i + 2], strict=True))
    assert np.array_equal(mersenne_mask(seed), mersenne_mask(folded + bytes(30)))  # where folded, these are one seed
    assert not looks_plain(masked - our_mask(folded + bytes(30)))
    others = (masked - our_mask(guess.to_bytes(2, "big") + bytes(30)) for guess in range(1 << BITS))
    assert not any(looks_plain(v) for v in others)
    # And every 16-bit word of the seed has to be right by itself.
    for i in range(0, 32, 2):
        wrong = seed[:i] + bytes([seed[i] ^ 1, seed[i + 1]]) + seed[i + 2 :]
        assert not looks_plain(masked - our_mask(wrong))
    assert looks_plain(masked - our_mask(seed))
