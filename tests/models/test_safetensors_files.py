"""Weights as safetensors: what was written comes back, and hostile files end in a sentence."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from fivefold.models.safetensors import Malformed, about, dump, load

WEIGHTS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1.5, -2.5]), "one": np.array(3.0)}


def made(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_weights_come_back_with_their_texts_and_the_same_bytes() -> None:
    data = dump(WEIGHTS, {"model": "x"})
    found = load(data, {"a": (2,), "b": (2, 3), "one": ()})
    assert all(np.array_equal(found[n], w) and found[n].dtype == w.dtype for n, w in WEIGHTS.items())
    assert about(data) == {"model": "x"}
    many = {str(i): "text" for i in range(9)}
    assert len({dump(WEIGHTS, many) for _ in range(9)}) == 1  # the library alone would shuffle the texts
    assert about(dump(WEIGHTS, many)) == many


def test_what_lies_otherwise_in_memory_is_written_in_order() -> None:
    """The library writes memory as it lies; a transposed array would come back another."""
    turned = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(load(dump({"w": turned}))["w"], turned)


@pytest.mark.parametrize("cut", [0, 7, 8, 20, -1])
def test_a_file_that_was_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(Malformed):
        load(dump(WEIGHTS)[:cut])


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", (1 << 20) + 1) + b" " * ((1 << 20) + 1),
        made(b"{" * 100_000),
        made(b"not json"),
        made([1, 2]),
        made(b'{"a": 1, "a": 2}'),
        made({"a": {**F32, "shape": [3]}}, bytes(8)),
        made({"a": {**F32, "shape": [1 << 40, 1 << 40]}}, bytes(8)),
        made({"a": {**F32, "shape": [-2]}}, bytes(8)),
        made({"a": F32, "b": F32}, bytes(8)),
        made({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)),
        made({"a": {**F32, "data_offsets": [0, 1 << 50]}}, bytes(8)),
        made({"a": {**F32, "dtype": "PICKLE"}}, bytes(8)),
        made({"a": {**F32, "dtype": "I64", "data_offsets": [0, 16]}}, bytes(16)),
        made({"a": F32}, bytes(64)),
        made({f"a{i}": 1 for i in range(10_001)}),
    ],
)
def test_a_hostile_file_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        load(data)


def test_other_names_or_shapes_than_the_model_s_are_refused() -> None:
    data = dump({"a": np.zeros(3)})
    for shapes in ({"a": (4,)}, {"b": (3,)}, {"a": (3,), "b": (1,)}):
        with pytest.raises(Malformed, match="other names or shapes"):
            load(data, shapes)
