"""Sites attack the models of a request: an overfit one meets concern, a plain one passes; and only names of rules leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.auth.keys import read_key
from fivefold.cli.main import run
from fivefold.coordinator import sealing
from fivefold.governance.attack_verdicts import MEMBERSHIP, RULES, Verdict, make
from fivefold.models import safetensors
from fivefold.records.audit import entries
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed

SITES = ("alder", "birch", "cedar")
WIDE = 40
"""Covariates, nearly all of them noise."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sealed run with three models of one outcome: `heart` learns its persons by heart, and is too wide for a table; `plain`
    is penalised; `nobody` holds nobody out."""
    r = np.random.default_rng(8)
    x = r.normal(size=(540, WIDE)).clip(-5, 5)
    y = (x[:, 0] + r.normal(size=540) > 0).astype(float)
    names = [f"x{i}" for i in range(WIDE)]
    frame = pd.DataFrame({**dict(zip(names, x.T, strict=True)), "y": y, "site": np.resize(SITES, 540)})
    variables = (*(Variable(n, n, "number", minimum=-9, maximum=9) for n in names), Variable("y", "y", "boolean"))
    mlp = {"kind": "mlp", "hidden": [200]}
    heart = {"model": mlp, "rounds": 15, "local_epochs": 20, "learning_rate": 1.0, "holdout": 0.4, "evaluate_every": 15}
    plain = {"model": {"kind": "logistic", "l2": 0.3}, "rounds": 5, "learning_rate": 0.5, "holdout": 0.4, "evaluate_every": 5}
    whole = "y ~ " + " + ".join(names)
    asked = (
        Analysis("heart", "fedavg", whole, options=heart),
        Analysis("plain", "fedavg", "y ~ x0 + x1", options=plain),
        Analysis("nobody", "fedavg", "y ~ x0", options={"rounds": 1}),
    )
    out = tmp_path_factory.mktemp("attacked") / "study"
    prepared(out, "heart", frame, variables, asked, seed=3, checkers=("first", "second"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sealing.KEY_PLACE, str(out / "coordinator.key"))
        assert run(["run", str(out / "study.signed.json"), "--quiet", "--sealed", "--out", str(out / "runs" / "a")]) == 0
        for analysis in ("heart", "plain", "nobody"):
            assert outputs(out, "request", "--purpose", "to use it", "--analysis", analysis, key="lead") == 0
        yield out


def outputs(study: Path, verb: str, *words: object, key: str) -> int:
    return run(["outputs", verb, str(study / "runs" / "a"), *map(str, words), "--key", str(study / f"{key}.key")])


def membership(study: Path, number: int, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What the checks say of membership: status and words."""
    capsys.readouterr()
    assert outputs(study, "check", number, "--json", key="first") == 0
    (output,) = json.loads(capsys.readouterr().out)["results"].values()
    (found,) = [(f["status"], f["words"]) for f in output["outcome"] if f["rule"] == "membership-inference"]
    return found


def test_an_overfit_model_needs_a_written_reason_and_a_plain_one_does_not(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert membership(study, 1, capsys)[0] == "review"  # nobody has attacked it
    for number in (1, 2, 3):
        assert outputs(study, "attack", number, key="first") == 0
    said = capsys.readouterr().out
    assert "plain: 3 pass, 0 concern" in said
    assert "nobody: 0 pass, 0 concern, 3 untested" in said
    status, words = membership(study, 1, capsys)
    assert (status, "of 3 sites could tell who was trained on" in words) == ("fail", True)
    assert membership(study, 2, capsys)[0] == "pass"
    assert membership(study, 3, capsys)[0] == "review"

    assert outputs(study, "decide", 1, "release", key="first") == 31
    assert outputs(study, "decide", 1, "exception", key="first") == 31  # without a reason
    assert outputs(study, "decide", 1, "exception", "--reason", "volunteers, who know", key="first") == 0


def test_a_concern_that_comes_after_the_decision_stops_the_release(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outputs(study, "request", "--purpose", "again", "--analysis", "plain", key="lead") == 0
    number = 4
    for who in ("first", "second"):
        assert outputs(study, "decide", number, "release", "--form", "rounded", key=who) == 0
    assert outputs(study, "attack", number, "--to", tmp_path, key="first") == 0
    weights = safetensors.about((tmp_path / "plain.safetensors").read_bytes())["weights_sha256"]
    node = read_key(study / "sites" / "birch" / "keys" / "node.key")
    digest = load_signed(study / "study.signed.json").digest
    late = Verdict("birch", digest, "plain", weights, "concern", (MEMBERSHIP,), "2026-11-28T00:00:00Z")
    (tmp_path / "late.json").write_bytes(make(late, node))
    assert outputs(study, "attack", number, "--verdict", tmp_path / "late.json", key="first") == 0
    assert membership(study, number, capsys)[0] == "fail"
    assert outputs(study, "release", number, key="coordinator") == 59
    assert "a check fails that did not when the checkers decided" in capsys.readouterr().err


def test_a_verdict_from_another_machine_holds_no_number_and_counts_once_it_is_whole(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outputs(study, "attack", 1, "--to", tmp_path, key="first") == 0
    model, out = tmp_path / "heart.safetensors", tmp_path / "verdict.json"
    where = study / "sites" / "alder"
    signed = str(study / "study.signed.json")
    assert run(["site", "attack", signed, str(model), "--site", str(where), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("attack by loss", "attack by scores", "members and"))

    facts = json.loads(out.read_bytes())["facts"]
    assert set(facts) == {"site", "study", "analysis", "model", "verdict", "rules", "at"}
    assert facts["verdict"] == "concern"
    assert "membership-inference" in facts["rules"]
    assert all(isinstance(v, str) for name, v in facts.items() if name != "rules")
    assert set(facts["rules"]) <= set(RULES)
    told = [e.facts for e in entries(where / "state" / "audit.jsonl") if e.event == "attack verdict"]
    assert told
    assert all(set(f) == {"study", "analysis", "model", "verdict", "rules"} for f in told)  # no figure here, either

    assert outputs(study, "attack", 1, "--verdict", out, key="first") == 0
    for wrong in (
        out.read_text("utf-8").replace('"concern"', '"pass"'),
        out.read_text("utf-8").replace('"alder"', '"birch"'),
    ):
        (tmp_path / "wrong.json").write_text(wrong, "utf-8")
        assert outputs(study, "attack", 1, "--verdict", tmp_path / "wrong.json", key="first") != 0


def test_a_file_that_is_no_model_of_the_study_is_refused(study: Path, tmp_path: Path) -> None:
    assert outputs(study, "attack", 2, "--to", tmp_path, key="first") == 0
    whole = (tmp_path / "plain.safetensors").read_bytes()
    signed, where = str(study / "study.signed.json"), str(study / "sites" / "birch")
    for wrong in (b"", whole[:-8], whole.replace(b'"plain"', b'"nobod"'), whole.replace(b"x0", b"x9")):
        (tmp_path / "wrong").write_bytes(wrong)
        assert run(["site", "attack", signed, str(tmp_path / "wrong"), "--site", where]) == 94


def test_a_site_attacks_few_models_a_day(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fivefold.site import release_ledger

    assert outputs(study, "attack", 2, "--to", tmp_path, key="first") == 0
    signed, where = str(study / "study.signed.json"), str(study / "sites" / "cedar")
    model = tmp_path / "plain.safetensors"
    assert run(["site", "attack", signed, str(model), "--site", where]) == 0
    monkeypatch.setattr(release_ledger, "PER_DAY", 1)
    assert run(["site", "attack", signed, str(model), "--site", where]) == 0  # the same model tells nothing new
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(bytes(data))
    assert run(["site", "attack", signed, str(model), "--site", where]) == 36
