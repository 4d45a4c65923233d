"""The secure sum's speed: masking at a site, unmasking at the coordinator, against Flower's functions and against the machine.

python -m benchmarks.secure_sum
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.measure import Figures, in_turns, report, seconds
from fivefold.privacy.fixed_point import pack, unpack
from fivefold.privacy.secagg import shamir
from fivefold.privacy.secagg.keys import KeyPair, agree_all, new_pair, pair_from_private
from fivefold.privacy.secagg.masks import WIDE, apply_masks, pair_sign, unmask
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, add_into, zeros
from fivefold.protocol.questions import Array, Field, FieldKind

WIDTH = 1_000_000
NEIGHBOURS = (10, 50, 100)
TURNS = {10: 24, 50: 10, 100: 7}
SITES, DROPPED, THRESHOLD = 40, 4, 27
CHUNK = 1 << 17
"""Bytes at a time for the machine's limits: three such buffers stay in a second-level cache of 512 KiB."""
CONTEXT = b"fivefold benchmark: study, run, round, attempt, digest of the key list"
TARGETS = {"ratio_to_flower": ">= 7", "share_of_ceiling": ">= 0.85", "unmask_ratio_to_flower": ">= 50"}
GB = 1e9


def main() -> None:
    flower = _flower()
    figures: Figures = {}
    print(f"Masking one update of {WIDTH:,} numbers in Z_2^32 (4 MB): ring vector to masked vector, key agreement included.")
    print("GB/s are bytes of the vector times masks, a second. Contestants take turns; the best turn of each counts.\n")
    _masking(figures, flower)
    _unmasking(figures, flower)
    _wide(figures)
    _encoding(figures)
    _memory(figures)
    report("secure_sum", figures, TARGETS)


def _masking(figures: Figures, flower: bool) -> None:
    ratios, both, shares, kernels, gains = [], [], [], [], []
    print("neighbours   this, ms    GB/s   share of ceiling (masks alone)   2 threads   Flower, ms   ratio   with 2 threads")
    for k in NEIGHBOURS:
        contestants = _site(k, flower)
        best = in_turns(contestants, TURNS[k])
        moved = 4 * WIDTH * (k + 1)
        ceiling = best["keystream"] + best["add"]
        shares.append(ceiling / best["one"])
        kernels.append(ceiling / best["masks"])
        gains.append(best["one"] / best["two"])
        row = f"{k:10d} {1e3 * best['one']:10.1f} {moved / best['one'] / GB:7.2f} {shares[-1]:18.1%} {kernels[-1]:13.1%}"
        row += f" {gains[-1]:10.2f}×"
        figures[f"mask_{k}_ms"] = 1e3 * best["one"]
        if flower:
            ratios.append(best["flower"] / best["one"])
            both.append(best["flower"] / best["two"])
            figures[f"flower_mask_{k}_ms"] = 1e3 * best["flower"]
            row += f" {1e3 * best['flower']:12.1f} {ratios[-1]:7.1f} {both[-1]:16.1f}"
        print(row)
    figures |= {
        "ratio_to_flower": min(ratios) if flower else None,
        "ratio_to_flower_two_threads": min(both) if flower else None,
        "share_of_ceiling": min(shares),
        "share_of_ceiling_masks_alone": min(kernels),
        "two_threads_gain": max(gains),
        "ceiling_gb_per_s": moved / ceiling / GB,
    }
    print("\nThe ceiling is one core's AES-128-CTR keystream plus uint32 add over as many bytes, in cached buffers:")
    print(f"{moved / best['keystream'] / GB:.1f} and {moved / best['add'] / GB:.1f} GB/s, together {moved / ceiling / GB:.2f}.")
    print("share_of_ceiling and ratio_to_flower are the worst of the three rows, on one thread.\n")


def _site(k: int, flower: bool) -> dict[str, Callable[[], object]]:
    """What one site does with k neighbours, and what the machine and Flower do with as much."""
    me, peers, own = new_pair(), [(new_pair().public, CONTEXT) for _ in range(k)], os.urandom(32)
    signs = [pair_sign(k // 2, i + (i >= k // 2)) for i in range(k)]
    vector = np.frombuffer(os.urandom(4 * WIDTH), dtype=np.uint32).copy()
    seeds = [(own, 1), *zip(agree_all(me.private, peers), signs, strict=True)]

    def ours(threads: int) -> None:
        agreed = agree_all(me.private, peers)
        apply_masks(vector, RING32, [(own, 1), *zip(agreed, signs, strict=True)], threads)

    keystream, add = _limits(4 * WIDTH * (k + 1))
    # In this order: a vector is warm when it comes from its encoding, but cold after a peer has swept the cache.
    contestants: dict[str, Callable[[], object]] = {
        "keystream": keystream,
        "add": add,
        "two": lambda: ours(2),
        "masks": lambda: apply_masks(vector, RING32, seeds),
        "one": lambda: ours(1),
    }
    if flower:
        from benchmarks import peer_flower

        private, _ = peer_flower.new_pair()
        publics = {i + (i >= k // 2): peer_flower.new_pair()[1] for i in range(k)}
        parameters = [vector.astype(np.int64)]
        contestants["flower"] = lambda: peer_flower.mask(parameters, k // 2, private, own, publics)
    return contestants


def _limits(size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """The machine's keystream and its add over `size` bytes, a cached chunk at a time."""
    buffer, nothing = np.empty(CHUNK + 16, dtype=np.uint8), memoryview(bytes(CHUNK))
    into, x, y = buffer.data, np.zeros(CHUNK // 4, dtype=np.uint32), buffer[:CHUNK].view(np.uint32)
    update = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(bytes(16))).encryptor().update_into
    chunks = range(size // CHUNK)

    def keystream() -> None:
        for _ in chunks:
            update(nothing, into)

    def add() -> None:
        for _ in chunks:
            np.add(x, y, out=x)

    return keystream, add


def _unmasking(figures: Figures, flower: bool) -> None:
    """Rebuild the secrets, agree on the masks of those that dropped out, take all masks away; checked against the plain sum."""
    survivors = range(DROPPED, SITES)
    pairs = [new_pair() for _ in range(SITES)]
    own = [os.urandom(32) for _ in range(SITES)]
    expected, masked = _round(pairs, own, survivors)
    points = [i + 1 for i in survivors]
    secrets = [own[i] for i in survivors] + [pairs[i].private for i in range(DROPPED)]
    shares = [shamir.split(s, range(1, SITES + 1), THRESHOLD) for s in secrets]
    sent = [{x: sharing[x] for x in points} for sharing in shares]
    total = masked.copy()

    def ours(threads: int) -> None:
        np.copyto(total, masked)
        rebuilt = shamir.combine_many(sent, THRESHOLD)
        seeds, keys = rebuilt[: len(survivors)], [pair_from_private(k) for k in rebuilt[len(survivors) :]]
        pair_seeds = (
            (seed, pair_sign(i, dead))
            for dead, key in enumerate(keys)
            for i, seed in zip(survivors, agree_all(key.private, [(pairs[i].public, CONTEXT) for i in survivors]), strict=True)
        )
        unmask(total, RING32, seeds, pair_seeds, threads)

    best = in_turns({"one": lambda: ours(1), "two": lambda: ours(2)}, 6)
    if not np.array_equal(total, expected):
        raise SystemExit("the unmasked total is not the plain sum")
    masks = len(survivors) * (1 + DROPPED)
    print(f"Unmasking {SITES} sites (complete graph, threshold {THRESHOLD}), {DROPPED} of them lost: {masks} masks of 4 MB.")
    print(f"This: {1e3 * best['one']:.0f} ms on one thread, {1e3 * best['two']:.0f} ms on two; the total equals the plain sum.")
    figures |= {"unmask_ms": 1e3 * best["one"], "unmask_two_threads_ms": 1e3 * best["two"]}
    figures["unmask_ratio_to_flower"] = None
    if flower:
        theirs = _flower_unmasking(survivors)
        figures |= {"flower_unmask_ms": 1e3 * theirs, "unmask_ratio_to_flower": theirs / best["one"]}
        print(
            f"Flower: {theirs:.1f} s, of which its Shamir's sharing is most; ratio {theirs / best['one']:.0f} on one thread,",
            end=" ",
        )
        print(f"{theirs / best['two']:.0f} on two.")
    print()


def _round(pairs: list[KeyPair], own: list[bytes], survivors: range) -> tuple[Array, Array]:
    """A true round: the plain sum of the survivors' vectors, and the sum of their masked ones."""
    plain, masked = zeros(WIDTH, RING32), zeros(WIDTH, RING32)
    for i in survivors:
        vector = np.full(WIDTH, i, dtype=np.uint32)
        add_into(plain, vector, RING32)
        others = [j for j in range(SITES) if j != i]
        agreed = agree_all(pairs[i].private, [(pairs[j].public, CONTEXT) for j in others])
        apply_masks(vector, RING32, [(own[i], 1), *((s, pair_sign(i, j)) for s, j in zip(agreed, others, strict=True))], 2)
        add_into(masked, vector, RING32)
    return plain, masked


def _flower_unmasking(survivors: range) -> float:
    """One turn only: it takes many seconds. Its work does not depend on the numbers, so the vector is any."""
    from benchmarks import peer_flower

    pairs = [peer_flower.new_pair() for _ in range(SITES)]
    seeds = {i: peer_flower.shares_of(os.urandom(32), THRESHOLD, SITES)[DROPPED:] for i in survivors}
    keys = {i: peer_flower.shares_of(pairs[i][0], THRESHOLD, SITES)[DROPPED:] for i in range(DROPPED)}
    total = [np.zeros(WIDTH, dtype=np.int64)]
    publics = {i: public for i, (_, public) in enumerate(pairs)}
    return seconds(lambda: peer_flower.unmask(total, seeds, keys, publics))


def _wide(figures: Figures) -> None:
    """Z_2^128, for statistics: two limbs with carries."""
    n, k = WIDTH // 4, 50
    vector, seeds = zeros(n, RING128), [(os.urandom(32), 1 - 2 * (i % 2)) for i in range(k)]
    keystream, _ = _limits(16 * n * k)
    add = _wide_add(16 * n * k)
    best = in_turns({"keystream": keystream, "add": add, "masks": lambda: apply_masks(vector, RING128, seeds)}, 6)
    rate, ceiling = 16 * n * k / best["masks"] / GB, best["keystream"] + best["add"]
    figures |= {"wide_gb_per_s": rate, "wide_share_of_ceiling": ceiling / best["masks"]}
    print(f"Z_2^128 (statistics), {n:,} numbers, {k} masks, carries included: {rate:.2f} GB/s on one thread,")
    print(f"{ceiling / best['masks']:.0%} of keystream plus the five passes that two limbs with a carry take.\n")


def _wide_add(size: int) -> Callable[[], None]:
    """Two limbs and a carry over `size` bytes in cached buffers: add, compare, add, count the carry."""
    low, high, a, b = (np.zeros(WIDE, dtype=np.uint64) for _ in range(4))
    over, carry = np.zeros(WIDE, dtype=np.bool_), np.zeros(WIDE, dtype=np.int8)
    unit, chunks = over.view(np.int8), range(size // (16 * WIDE))

    def work() -> None:
        for _ in chunks:
            np.add(low, a, out=low)
            np.less(low, a, out=over)
            np.add(high, b, out=high)
            np.add(carry, unit, out=carry)

    return work


def _encoding(figures: Figures) -> None:
    """Numbers to ring elements and back, which masking does not include."""
    values = np.random.default_rng(1).uniform(-1, 1, WIDTH)
    print(f"Encoding {WIDTH:,} numbers, apart from masking (one thread):", end=" ")
    kinds: tuple[tuple[FieldKind, Ring], ...] = (("update", RING32), ("real", RING128))
    for kind, ring in kinds:
        fields = (Field("values", kind, 1.0, (WIDTH,)),)
        vector = pack({"values": values}, fields, SITES)
        best = in_turns(
            {"pack": partial(pack, {"values": values}, fields, SITES), "unpack": partial(unpack, vector, fields, SITES)}, 3
        )
        _encoded(figures, ring, best)
    print("\n")


def _encoded(figures: Figures, ring: Ring, best: dict[str, float]) -> None:
    figures |= {f"pack_{ring.bits}_ms": 1e3 * best["pack"], f"unpack_{ring.bits}_ms": 1e3 * best["unpack"]}
    print(f"Z_2^{ring.bits} {1e3 * best['pack']:.1f} ms, back {1e3 * best['unpack']:.1f} ms;", end=" ")


def _memory(figures: Figures) -> None:
    """The coordinator's peak over n streamed updates, each n in a process of its own."""
    print("Coordinator's peak memory, streaming, beyond what one update took:", end=" ")
    for n in (10, 100, 1000):
        command = [sys.executable, "-m", "benchmarks.secure_sum_memory", str(n)]
        megabytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e6
        figures[f"peak_memory_{n}_sites_mb"] = megabytes
        print(f"{n} sites {megabytes:.1f} MB;", end=" ")
    print("\n")


def _flower() -> bool:
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        import benchmarks.peer_flower  # noqa: F401
    except ImportError:
        print("Flower is not installed, so nothing is compared with it: pip install 'fivefold[flower]'.\n")
        return False
    return True


if __name__ == "__main__":
    main()
