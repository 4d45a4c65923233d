"""A study that trains adapters (LoRA): the base by its digest, refused where it is not, merged when the model is taken out."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.cli.main import run
from fivefold.models import safetensors
from fivefold.results.write import read_results
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable

SITES = ("alder", "birch", "cedar")


def test_from_the_study_file_to_the_merged_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    r = np.random.default_rng(3)
    x = r.normal(size=(120, 2))
    ill = (x.prod(axis=1) > 0).astype(float)
    frame = pd.DataFrame({"u": x[:, 0], "v": x[:, 1], "ill": ill, "site": np.resize(SITES, 120)})
    variables = (*(Variable(n, n, "number", minimum=-5, maximum=5) for n in "uv"), Variable("ill", "ill", "boolean"))
    base = {"layer1": r.normal(size=(6, 2)), "bias1": r.normal(size=6), "layer2": r.normal(size=(1, 6)), "bias2": np.zeros(1)}
    file = tmp_path / "base.safetensors"
    file.write_bytes(safetensors.dump(base))
    model = {"kind": "torch_mlp", "hidden": [6], "lora": {"base": "../base.safetensors", "rank": 2, "alpha": 4}}
    options = {"model": model, "rounds": 3, "learning_rate": 0.2, "scaling": "range", "evaluate_every": 3, "bins": 0}
    out = tmp_path / "study"
    signed = prepared(out, "net", frame, variables, (Analysis("net", "fedavg", "ill ~ u + v", options=options),), seed=5)
    (asked,) = signed.study.analyses
    assert asked.options["model"]["lora"]["base"] == hashlib.sha256(file.read_bytes()).hexdigest()

    study = str(out / "study.signed.json")
    shutil.copy(file, out / "public.safetensors")
    few = ["--made-up", "--clients", "4", "--rounds", "1", "--quiet"]
    assert run(["simulate", study, *few, "--out", str(tmp_path / "played")]) == 0

    first = str(out / "runs" / "first")
    (out / "sites" / "birch" / "models").mkdir()
    (out / "sites" / "birch" / "models" / "base.safetensors").write_bytes(safetensors.dump({**base, "bias2": np.ones(1)}))
    assert run(["run", study, "--quiet", "--out", first]) != 0  # nobody has the base, one has another
    log = (out / "sites" / "birch" / "state" / "audit.jsonl").read_text("utf-8")
    assert "base_weights" in log
    for site in SITES:
        place = out / "sites" / site / "models"
        place.mkdir(exist_ok=True)
        shutil.copy(file, place / "public.safetensors")
    second = out / "runs" / "second"
    assert run(["run", study, "--quiet", "--out", str(second)]) == 0
    result = read_results(second)["net"]
    assert len(result.tables["weights"].rows) == 2 * (2 + 6) + 2 * (6 + 1)

    assert run(["model", "export", str(second)]) == 94
    assert "--base" in capsys.readouterr().err
    assert run(["model", "export", str(second), "--format", "safetensors", "--out", str(tmp_path / "own")]) == 0
    own = safetensors.load((tmp_path / "own" / "model.safetensors").read_bytes())
    assert set(own) == {"layer1.A", "layer1.B", "layer2.A", "layer2.B"}
    whole = tmp_path / "whole"
    words = ["--format", "onnx", "--format", "safetensors", "--base", str(file), "--out", str(whole)]
    assert run(["model", "export", str(second), *words]) == 0
    merged = safetensors.load((whole / "model.safetensors").read_bytes())
    for n in ("layer1", "layer2"):
        np.testing.assert_allclose(merged[n], base[n] + 2 * own[f"{n}.B"] @ own[f"{n}.A"], atol=1e-12)
    hidden = np.maximum(x / 5 @ merged["layer1"].T + merged["bias1"], 0)
    expected = 1 / (1 + np.exp(-(hidden @ merged["layer2"].T + merged["bias2"])))
    (found,) = onnxruntime.InferenceSession(whole / "model.onnx").run(None, {"variables": x})
    np.testing.assert_allclose(found, expected, atol=2e-6)
    card = json.loads((whole / "model_card.json").read_text("utf-8"))
    assert card["model"]["adapters_on"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert run(["model", "export", str(second), "--base", str(whole / "model.safetensors"), "--out", str(tmp_path / "x")]) == 94
