"""Flower 1.41's SecAgg+, by Flower's own functions: what its client does to mask, and its server to unmask.

The two functions here make the same calls in the same order as `_collect_masked_vectors` of
flwr/client/mod/secure_aggregation/secaggplus_mod.py, from the private mask on, and `unmask_stage` of
flwr/server/workflow/secure_aggregation/secaggplus_workflow.py, from the collected shares to the last modulus. Quantising and
messages are left out: that favours Flower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

MODULUS = 1 << 32
Parameters = list[np.ndarray[Any, Any]]


def new_pair() -> tuple[bytes, bytes]:
    """Private and public key as its messages carry them."""
    private, public = generate_key_pairs()
    return private_key_to_bytes(private), public_key_to_bytes(public)


def shares_of(secret: bytes, threshold: int, count: int) -> list[bytes]:
    return list(create_shares(secret, threshold, count))


def mask(parameters: Parameters, me: int, private: bytes, seed: bytes, publics: Mapping[int, bytes]) -> Parameters:
    """A client's masked vector: its own mask, then one with each neighbour by node id."""
    shapes = get_parameters_shape(parameters)
    parameters = parameters_addition(parameters, pseudo_rand_gen(seed, MODULUS, shapes))
    for peer, public in publics.items():
        shared = generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))
        pairwise = pseudo_rand_gen(shared, MODULUS, shapes)
        parameters = parameters_addition(parameters, pairwise) if me > peer else parameters_subtraction(parameters, pairwise)
    return parameters_mod(parameters, MODULUS)


def unmask(
    total: Parameters,
    seed_shares: Mapping[int, Sequence[bytes]],
    key_shares: Mapping[int, Sequence[bytes]],
    publics: Mapping[int, bytes],
) -> Parameters:
    """The server's work: seeds of those that answered, keys of those that did not; a complete graph over `publics`."""
    for shares in seed_shares.values():
        private_mask = pseudo_rand_gen(combine_shares(list(shares)), MODULUS, get_parameters_shape(total))
        total = parameters_subtraction(total, private_mask)
    for dead, shares in key_shares.items():
        secret = combine_shares(list(shares))
        for peer in publics.keys() - {dead}:
            shared = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(publics[peer]))
            pairwise = pseudo_rand_gen(shared, MODULUS, get_parameters_shape(total))
            total = parameters_addition(total, pairwise) if dead > peer else parameters_subtraction(total, pairwise)
    return parameters_mod(total, MODULUS)
