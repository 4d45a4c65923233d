"""LoRA: only adapters are trained and leave, the base stands still, and merged weights predict the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fivefold.algorithms.training_loop import framed
from fivefold.algorithms.training_rows import Pull, chance, descend, problem
from fivefold.algorithms.training_spec import TrainingSpec
from fivefold.errors import SourceNotFound, StudyInvalid
from fivefold.models import lora, safetensors
from fivefold.models.model import ModelSpec, build, flat, size
from fivefold.plugins import method
from fivefold.study.model_code import with_sources
from tests.algorithms import plain
from tests.algorithms import training_data as td

NET = {"kind": "torch_mlp", "hidden": [24]}
OPTIONS = {"scaling": "range", "holdout": 0.25, "bins": 0}


def adapters(base: bytes, **more: object) -> dict[str, object]:
    return {**NET, "lora": {"base": lora.keep(base), "rank": 4, "alpha": 8} | more}


@pytest.fixture(scope="module")
def base() -> bytes:
    """A network trained, at one place, on the images of the digits 0 to 4 alone."""
    _, setting, tables = td.digits()
    whole, (table,) = td.one_site(tables, setting)
    spec = method("fedavg").parse(td.analysis("fedavg", td.DIGITS, model=NET, **OPTIONS), whole)
    model, rows, _ = problem(table, framed(spec, None, 0, 0).fit)
    half = rows.take(rows.y < 5)
    start = model.initial(np.random.default_rng(1))
    weights, _ = descend(
        model, start, half, epochs=6, batch_size=32, rate=0.1, rng=chance(1, "base", 0), pull=Pull()
    )  # fmt: skip
    return safetensors.dump(weights)


def spec_of(base: bytes, **more: object) -> ModelSpec:
    own = {"precision": "double", "lora": lora.options({"base": lora.keep(base), "rank": 4, "alpha": 8, **more}, shapes())}
    return ModelSpec("torch_mlp", "classes", 64, 10, True, (24,), 0.0, own)


def shapes() -> dict[str, tuple[int, ...]]:
    return dict(build(ModelSpec("torch_mlp", "classes", 64, 10, True, (24,), 0.0, {"precision": "double"})).shapes)


def test_at_the_start_it_is_its_base_and_merged_it_predicts_the_same(base: bytes) -> None:
    spec = spec_of(base)
    model, r = build(spec), np.random.default_rng(2)
    x, y = r.uniform(-1, 1, (40, 64)), r.integers(0, 10, 40).astype(float)
    at = model.initial(r)
    whole, weights = lora.merged(spec, at)
    held = safetensors.load(base)
    assert all(np.array_equal(weights[n], held[n]) for n in held)
    np.testing.assert_array_equal(model.predict(at, x), build(whole).predict(weights, x))
    moved = model.descend(model.descend(at, x, y, 0.01), x, y, 0.01)
    assert all(np.abs(moved[n] - at[n]).max() > 0 for n in at)
    _, weights = lora.merged(spec, moved)
    for n in ("layer1", "layer2"):
        np.testing.assert_allclose(weights[n], held[n] + moved[f"{n}.B"] @ moved[f"{n}.A"] * (8 / 4), atol=1e-14)
    assert all(np.array_equal(weights[n], held[n]) for n in ("bias1", "bias2"))
    np.testing.assert_allclose(model.predict(moved, x), build(whole).predict(weights, x), atol=1e-12)


def test_each_row_s_gradient_is_that_of_the_row_alone(base: bytes) -> None:
    spec = spec_of(base, layers=["layer2"])
    model, r = build(spec), np.random.default_rng(2)
    x, y = r.uniform(-1, 1, (5, 64)), r.integers(0, 10, 5).astype(float)
    at = {n: r.normal(size=s) for n, s in model.shapes.items()}
    each = model.row_gradients(at, x, y)
    for i in range(5):
        np.testing.assert_allclose(each[i], flat(model.loss_and_gradient(at, x[i : i + 1], y[i : i + 1])[1]), atol=1e-12)


def test_only_adapters_leave_and_the_base_stands_still(base: bytes) -> None:
    _, setting, tables = td.digits()
    before = hashlib.sha256(safetensors.dump(lora._held[hashlib.sha256(base).hexdigest()])).hexdigest()
    asked = td.analysis("fedavg", td.DIGITS, model=adapters(base), rounds=3, learning_rate=0.05, batch_size=16, **OPTIONS)
    spec = method("fedavg").parse(asked, setting)
    log = plain.transcript(method("fedavg"), asked, setting, tables, ring=True)
    rank, wide = 4, 4 * (64 + 24) + 4 * (24 + 10)
    assert spec.width == size(spec.network()) == rank * (64 + 24 + 24 + 10) == wide
    updates = [f for q in log.questions for s in q for f in s.fields if f.name == "update"]
    assert len(updates) == 3
    assert {f.shape for f in updates} == {(wide,)}
    assert list(spec.shapes) == ["layer1.A", "layer1.B", "layer2.A", "layer2.B"]
    assert len(max(log.encoded, key=len)) < 8 * wide + 20_000  # questions carry the digest of the base, never the base
    after = hashlib.sha256(safetensors.dump(lora._held[hashlib.sha256(base).hexdigest()])).hexdigest()
    assert after == before
    held = lora._held[hashlib.sha256(base).hexdigest()]
    with pytest.raises(ValueError, match="read-only"):
        held["layer1"][0, 0] = 1.0


def test_one_full_batch_step_over_sites_is_the_pooled_step(base: bytes) -> None:
    _, setting, tables = td.digits(sites=4)
    options = {"model": adapters(base, layers=["layer2"]) | {"precision": "double"}, "rounds": 1, "learning_rate": 0.05}
    options |= {"scaling": "range", "evaluate_every": 0}
    apart = td.train("fedavg", setting, tables, td.DIGITS, **options)
    pooled = td.train("fedavg", *td.one_site(tables, setting), td.DIGITS, **options)
    start = flat(build(_parsed(setting, options).model).initial(np.random.Generator(np.random.Philox(key=setting.seed))))
    assert np.abs(td.weights(pooled) - start).max() > 1e-3
    np.testing.assert_allclose(td.weights(apart), td.weights(pooled), atol=2e-7)


def _parsed(setting: object, options: dict[str, object]) -> TrainingSpec:
    return method("fedavg").parse(td.analysis("fedavg", td.DIGITS, **options), setting)


def test_adapters_teach_a_base_the_half_of_the_digits_that_it_never_saw(base: bytes) -> None:
    _, setting, tables = td.digits()
    options = {"model": adapters(base), "learning_rate": 0.05, "local_epochs": 2, "batch_size": 16, **OPTIONS}
    result = td.train("fedavg", setting, tables, td.DIGITS, rounds=12, evaluate_every=12, **options)
    first, last = result.tables["rounds"].column("accuracy")
    print(f"base {first:.3f}, with adapters {last:.3f}")
    assert 0.4 < float(first) < 0.6
    assert float(last) > 0.85


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base": "b.safetensors"}, "no digest"), ({"rank": 0}, "`rank`"), ({"alpha": 0}, "`alpha`"),
        ({"layers": ["bias1"]}, "layer1, layer2"), ({"more": 1}, "`lora` is"),
    ],
)  # fmt: skip
def test_options_are_told_in_sentences(base: bytes, wrong: dict[str, object], said: str) -> None:
    _, setting, _ = td.digits(sites=2)
    own = adapters(base)
    own["lora"] = {**own["lora"], **wrong}
    with pytest.raises(StudyInvalid, match=said):
        method("fedavg").parse(td.analysis("fedavg", td.DIGITS, model=own), setting)


def test_a_base_is_taken_by_its_digest_alone(base: bytes, tmp_path: Path) -> None:
    other = safetensors.dump({"layer1": np.ones((2, 2))})
    own = hashlib.sha256(other).hexdigest()
    (tmp_path / "a.safetensors").write_bytes(base)
    with pytest.raises(SourceNotFound, match="is not here"):
        lora.bring(tmp_path, [own])
    (tmp_path / "b.safetensors").write_bytes(other)
    lora.bring(tmp_path, [own])
    spec = spec_of(base)
    unfit = ModelSpec(**{**vars(spec), "more": {**spec.more, "lora": {**spec.more["lora"], "base": own}}})
    with pytest.raises(SourceNotFound, match="other layers"):
        lora.base(unfit)


def test_the_file_s_digest_stands_in_its_name_s_place_and_a_missing_one_is_a_fault(base: bytes, tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").write_bytes(base)
    for name in ("base.safetensors", "far.safetensors"):
        data = {"analyses": [{"options": {"model": {**NET, "lora": {"base": name}}}}]}
        read, faults = with_sources(data, tmp_path)
        own = read["analyses"][0]["options"]["model"]["lora"]["base"]
        assert own == (hashlib.sha256(base).hexdigest() if name == "base.safetensors" else "")
        assert [f.what for f in faults] == ([] if own else ["the base model 'far.safetensors' cannot be read"])
