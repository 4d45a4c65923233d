"""PyTorch networks: bits that hang on neither threads nor neighbours, options in sentences, torch imported where needed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fivefold.algorithms.training_rows import Part, person_gradients
from fivefold.errors import StudyInvalid
from fivefold.models.model import ModelSpec, build, flat, more, named, size
from tests.algorithms import training_data as td

CNN = ModelSpec("torch_cnn", "classes", 64, 10, True, (), 0.01, {"precision": "single", "image": (1, 8, 8), "channels": (4, 8)})
TWICE = """
import hashlib, numpy as np
from fivefold.models.model import *
own = {"precision": "single", "image": (1, 8, 8), "channels": (8, 16)}
spec = ModelSpec("torch_cnn", "classes", 64, 10, True, (), 0.01, own)
model, r = build(spec), np.random.default_rng(1)
x, y = r.normal(size=(300, 64)), r.integers(0, 10, 300).astype(float)
at = model.initial(r)
for _ in range(3):
    at = model.descend(at, x, y, 0.1)
found = np.concatenate([flat(at), model.row_gradients(at, x[:40], y[:40]).ravel(), model.predict(at, x).ravel()])
import torch
print(torch.get_num_threads(), hashlib.sha256(found.tobytes()).hexdigest())
"""


def rows(n: int, seed: int = 1) -> Part:
    r = np.random.default_rng(seed)
    return Part(r.uniform(-1, 1, size=(n, 64)), r.integers(0, 10, n).astype(float), np.arange(n))


def test_two_threads_give_the_bits_of_one() -> None:
    said = []
    for threads in ("1", "2"):
        env = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split())
    assert [s[0] for s in said] == ["1", "2"]
    assert said[0][1] == said[1][1]


def test_a_row_s_gradient_has_the_same_bits_whoever_else_is_there() -> None:
    """Else one person's coming or going would change the others' clipped gradients, and the sensitivity would not hold."""
    model, part = build(CNN), rows(45)
    at = model.initial(np.random.default_rng(2))
    whole = model.row_gradients(at, part.x, part.y)
    order = np.random.default_rng(3).permutation(45)
    assert np.array_equal(model.row_gradients(at, part.x[order], part.y[order]), whole[order])
    for kept in ([7], [0, 44], list(range(33))):
        assert np.array_equal(model.row_gradients(at, part.x[kept], part.y[kept]), whole[kept])


def test_persons_gradients_are_those_of_their_own_rows_clipped() -> None:
    model, part = build(CNN), rows(30)
    part = Part(part.x, part.y, np.repeat(np.arange(10), 3))
    at = model.initial(np.random.default_rng(2))
    expected = np.zeros(size(model))
    for person in range(10):
        own = part.take(part.person == person)
        gradient = flat(model.loss_and_gradient(at, own.x, own.y)[1])
        expected += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
    found = person_gradients(model, at, part, 0.5)[0]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    rest = part.take(part.person != 4)
    moved = np.linalg.norm(found - person_gradients(model, at, rest, 0.5)[0])
    assert 0.4 < moved <= 0.5


def test_the_network_is_torch_s_own() -> None:
    model, part = build(CNN), rows(5)
    at = {n: w.astype(np.float32).astype(float) for n, w in named(np.linspace(-1, 1, size(model)), model.shapes).items()}
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 8, 3, padding=1),
        torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, 10), torch.nn.Softmax(1),
    )  # fmt: skip
    with torch.no_grad():
        for parameter, value in zip(theirs.parameters(), at.values(), strict=True):
            parameter.copy_(torch.from_numpy(value))
        expected = theirs(torch.from_numpy(part.x.astype(np.float32)).reshape(-1, 1, 8, 8)).numpy()
    np.testing.assert_allclose(model.predict(at, part.x), expected, atol=1e-5)


def test_what_was_set_in_torch_stays_so() -> None:
    model, part = build(CNN), rows(5)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    model.loss_and_gradient(model.initial(np.random.default_rng(2)), part.x, part.y)
    assert torch.equal(torch.rand(1), expected)
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"image": [1, 8, 9]}, "together 64 columns"), ({}, "image"), ({"image": [1, 8, 8], "channels": [0]}, "channels"),
        ({"image": [1, 8, 8], "channels": [2, 2, 2, 2]}, "halved"), ({"image": [1, 8, 8], "precision": "half"}, "precision"),
    ],
)  # fmt: skip
def test_wrong_options_end_in_a_sentence(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        more("torch_cnn", given, 64)


def test_a_study_with_a_wrong_network_is_refused_with_what_to_write() -> None:
    _, setting, tables = td.digits(sites=3)
    with pytest.raises(StudyInvalid, match=r"image.*together 64 columns"):
        td.train("fedavg", setting, tables, td.DIGITS, model={"kind": "torch_cnn", "image": [1, 9, 9]})
    with pytest.raises(StudyInvalid, match="no key 'depth'"):
        td.train("fedavg", setting, tables, td.DIGITS, model={"kind": "torch_mlp", "depth": 3})


def test_torch_is_imported_beside_the_rows_alone() -> None:
    """Shapes and first weights, which is all that the side without rows needs, come without it."""
    code = TWICE.split("for _ in")[0] + "size(model); import sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_full_batch_step_of_fedavg_is_pooled_gradient_descent() -> None:
    _, setting, tables = td.digits(sites=3)
    network = {"kind": "torch_cnn", "image": [1, 8, 8], "channels": [2, 2], "precision": "double"}
    options = {"model": network, "rounds": 2, "learning_rate": 0.1, "scaling": "range"}
    found = td.weights(td.train("fedavg", setting, tables, td.DIGITS, **options))
    pooled = td.weights(td.train("fedavg", *td.one_site(tables, setting), td.DIGITS, **options))
    np.testing.assert_allclose(found, pooled, atol=1e-8)
