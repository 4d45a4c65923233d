"""A model out of a run: of a sealed run only what checkers let go, with a card whose numbers are the released ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.algorithms.training_result import digest
from fivefold.cli.main import run
from fivefold.coordinator import sealing
from fivefold.models import safetensors
from fivefold.models.user_code import digest_of
from fivefold.results.write import read_results
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable

SITES = ("alder", "birch", "cedar")
CODE = """def predict(weights, x):
    return x @ weights["w"]

def loss_and_gradient(weights, x, y):
    off = (x @ weights["w"])[:, 0] - y
    return (off * off).mean() / 2, {"w": x.T @ off[:, None] / len(y)}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs `open` (a rehearsal) and `sealed`, of which `near` and `wide` were released as they are, `near` rounded, too."""
    r = np.random.default_rng(6)
    x = r.normal(size=(150, 2))
    y = 1 + x[:, 0] - x[:, 1] / 2 + r.normal(scale=0.1, size=150)
    frame = pd.DataFrame({"u": 50 + 9 * x[:, 0], "v": x[:, 1], "y": y, "site": np.resize(SITES, 150)})
    short = {"rounds": 2, "learning_rate": 0.5, "evaluate_every": 2, "holdout": 0.2}
    own = {"kind": "code", "source": CODE, "digest": digest_of(CODE), "shapes": {"w": [2, 1]}}
    asked = (
        Analysis("near", "fedavg", "y ~ u + v", options=short),
        Analysis("wide", "fedavg", "y ~ u + v", options={**short, "model": {"kind": "mlp", "hidden": [1500]}}),
        Analysis("own", "fedavg", "y ~ u + v", options={**short, "model": own}),
        Analysis("heads", "personalised", "y ~ u + v", options=short),
        Analysis("fit", "glm", "y ~ u", options={"family": "gaussian"}),
    )
    variables = (
        Variable("u", "Weight", "number", minimum=0, maximum=100), Variable("v", "v", "number", minimum=-9, maximum=9),
        Variable("y", "y", "number", minimum=-9, maximum=9),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("models") / "study"
    prepared(out, "net", frame, variables, asked, seed=5, policy={"user_models": "permitted"}, checkers=("first", "second"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sealing.KEY_PLACE, str(out / "coordinator.key"))
        assert run(["run", str(out / "study.signed.json"), "--quiet", "--out", str(out / "runs" / "open")]) == 0
        place = str(out / "runs" / "sealed")
        assert run(["run", str(out / "study.signed.json"), "--quiet", "--sealed", "--out", place]) == 0
        yield out


def export(study: Path, which: str, *words: str) -> int:
    return run(["model", "export", str(study / "runs" / which), *words])


def release(study: Path, number: int, form: str, *names: str) -> None:
    place, named = str(study / "runs" / "sealed"), [w for n in names for w in ("--analysis", n)]
    assert run(["outputs", "request", place, "--key", str(study / "lead.key"), "--purpose", "to use it", *named]) == 0
    for who in ("first", "second"):
        words = ["exception", "--reason", "a model was planned", "--form", form, "--key", str(study / f"{who}.key")]
        assert run(["outputs", "decide", place, str(number), *words]) == 0
    assert run(["outputs", "release", place, str(number), "--key", str(study / "coordinator.key")]) == 0


def test_a_rehearsal_s_model_in_both_formats_with_its_card(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "near"
    assert export(study, "open", "--analysis", "near", "--format", "safetensors", "--out", str(out)) == 0
    assert export(study, "open", "--analysis", "near", "--out", str(out)) == 0
    assert {p.name for p in out.iterdir()} == {"model.onnx", "model.safetensors", "model_card.json", "MODEL_CARD.md"}
    result = read_results(study / "runs" / "open")["near"]
    weights = safetensors.load((out / "model.safetensors").read_bytes(), {"coefficients": (2, 1), "intercept": (1,)})
    assert digest(np.concatenate([w.ravel() for w in weights.values()])) == result.facts["weights_sha256"]
    table = result.tables["coefficients"]
    b = dict(zip(table.column("term"), table.column("estimate"), strict=True))
    x = np.array([[61.0, 0.5], [20.0, -1.0]])
    (found,) = onnxruntime.InferenceSession(out / "model.onnx").run(None, {"variables": x})
    np.testing.assert_allclose(found[:, 0], b["intercept"] + x @ [b["u"], b["v"]], atol=1e-9)

    card = json.loads((out / "model_card.json").read_text("utf-8"))
    assert card["provenance"]["status"].startswith("rehearsal")
    assert card["data"]["counts"]["persons"] == result.facts["persons"]
    assert card["data"]["sites"] == list(SITES)
    assert card["evaluation"]["measures"]["root_mean_squared_error"] == result.facts["root_mean_squared_error"]
    assert card["evaluation"]["on"].startswith("20%")
    assert card["licence"] == "CC-BY-4.0"
    assert set(card["model"]["files"]) == {"model.onnx", "model.safetensors"}
    assert "is not bounded" in card["privacy"]["words"][1]
    page = (out / "MODEL_CARD.md").read_text("utf-8")
    for words in ("| `u` | Weight | number |  | 0 to 100 |", "rehearsal", "no output checker", "McMahan", "secure sum"):
        assert words in page, words


def test_what_has_no_model_or_no_graph_says_so(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        (): "Name one with --analysis: near, wide, own, heads",
        ("--analysis", "fit"): "trains no model",
        ("--analysis", "far"): "has no analysis 'far'",
        ("--analysis", "own"): "--format safetensors",
        ("--analysis", "heads"): "stays at each site",
    }
    for words, sentence in said.items():
        assert export(study, "open", *words, "--out", str(tmp_path / "x")) == 94
        assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "x").exists()
    for name in ("own", "heads"):
        assert export(study, "open", "--analysis", name, "--format", "safetensors", "--out", str(tmp_path / name)) == 0
    card = json.loads((tmp_path / "own" / "model_card.json").read_text("utf-8"))
    assert card["method"]["options"]["model"]["digest"] == digest_of(CODE)
    assert "source" not in card["method"]["options"]["model"]
    assert export(study, "open", "--analysis", "near", "--out", str(tmp_path / "own")) == 94  # another model lies there


def test_a_wide_model_comes_from_a_replay_of_the_journal(study: Path, tmp_path: Path) -> None:
    assert export(study, "open", "--analysis", "wide", "--format", "safetensors", "--out", str(tmp_path / "wide")) == 0
    weights = safetensors.load((tmp_path / "wide" / "model.safetensors").read_bytes())
    assert sum(w.size for w in weights.values()) == 6001
    result = read_results(study / "runs" / "open")["wide"]
    assert not result.tables["weights"].rows
    assert (
        digest(np.concatenate([weights[n].ravel() for n in ("layer1", "bias1", "layer2", "bias2")]))
        == result.facts["weights_sha256"]
    )


def test_of_a_sealed_run_only_what_was_released(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near, files = ("--analysis", "near"), ("--format", "safetensors")
    assert export(study, "sealed", *near, "--out", str(tmp_path / "a")) == 59
    assert "was not released" in capsys.readouterr().err
    release(study, 1, "rounded", "near")
    assert export(study, "sealed", *near, *files, "--out", str(tmp_path / "a")) == 0
    card = json.loads((tmp_path / "a" / "model_card.json").read_text("utf-8"))
    assert card["provenance"]["output_checkers"] == ["first", "second"]
    assert card["provenance"]["weights_sha256"] != card["provenance"]["trained_weights_sha256"]
    rounded = safetensors.load((tmp_path / "a" / "model.safetensors").read_bytes())
    assert all(float(f"{v:.6g}") == v for w in rounded.values() for v in w.ravel())
    assert any("6 digits" in w for w in card["limits"])
    assert export(study, "sealed", "--analysis", "wide", "--out", str(tmp_path / "b")) == 59
    release(study, 2, "rounded", "wide")
    assert export(study, "sealed", "--analysis", "wide", *files, "--out", str(tmp_path / "b")) == 0
    wide = safetensors.load((tmp_path / "b" / "model.safetensors").read_bytes())
    assert all(float(f"{v:.6g}") == v for w in wide.values() for v in w.ravel())

    shutil.copytree(study / "runs" / "sealed", changed := tmp_path / "changed")
    own = changed / "released" / "001" / "result.json"
    own.write_text(own.read_text("utf-8").replace('"near"', '"near" '), "utf-8")
    assert run(["model", "export", str(changed), *near, "--out", str(tmp_path / "c")]) != 0
    assert "is not the one that its signed note names" in capsys.readouterr().err
