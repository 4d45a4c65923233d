"""Before a release each site attacks its models: it objects to one that learned its persons by heart, and not to a plain one;
and nothing but noughts and ones in a sum over all sites leaves."""

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
from fivefold.coordinator import airlock, sealing
from fivefold.errors import ModelNotExported
from fivefold.protocol.objections import REMARKS, RULES
from fivefold.records.audit import entries
from fivefold.site.folder import opened
from fivefold.site.release_ledger import Proposed, verdict
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable

SITES = ("alder", "birch", "cedar")
WIDE = 40
"""Covariates, nearly all of them noise."""
MODELS = ("heart", "plain", "nobody")


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
        for analysis in MODELS:
            assert outputs(out, "request", "--purpose", "to use it", "--analysis", analysis, key="lead") == 0
        yield out


def outputs(study: Path, verb: str, *words: object, key: str) -> int:
    return run(["outputs", verb, str(study / "runs" / "a"), *map(str, words), "--key", str(study / f"{key}.key")])


def together(study: Path, number: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the checks say of the sites, each with its status."""
    capsys.readouterr()
    assert outputs(study, "check", number, "--json", key="first") == 0
    said = json.loads(capsys.readouterr().out)["together"]
    return [f"{f['status']}: {f['words']}" for f in said if f["words"].startswith(("sites:", *REMARKS))]


def models(study: Path) -> dict[str, bytes]:
    it = airlock.airlock(study / "runs" / "a")
    held = airlock.opened(it, read_key(study / "first.key"))
    return {n: airlock.proposal(it, held, i + 1, "as_is")[0].models[n] for i, n in enumerate(MODELS)}


def test_a_checker_at_another_desk_has_not_the_coordinators_key(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The wide model comes out of the sealed journal all the same."""
    monkeypatch.setenv(sealing.KEY_PLACE, str(tmp_path / "none.key"))
    assert together(study, 1, capsys)[0] == "fail: sites: 3 of 3 sites object (membership)"


def test_sites_object_to_an_overfit_model_and_not_to_a_plain_one(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert together(study, 1, capsys)[0] == "fail: sites: 3 of 3 sites object (membership)"
    assert together(study, 2, capsys)[0] == "pass: sites: none of 3 sites objects"
    assert together(study, 3, capsys)[:2] == [
        "pass: sites: none of 3 sites objects",
        "review: untested: at 3 of 3 sites; nobody was held out there, or too few to tell",
    ]
    for words in (("release",), ("exception", "--reason", "volunteers, who know")):
        assert outputs(study, "decide", 1, *words, key="first") == 31
    assert outputs(study, "decide", 2, "release", "--form", "rounded", key="first") == 0


def test_the_sites_log_says_why_and_holds_no_figure(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    together(study, 1, capsys)
    told = [e.facts for e in entries(study / "sites" / "alder" / "state" / "audit.jsonl") if e.event == "release verdict"]
    assert "membership" in told[0]["reasons"]
    assert all(set(f) == {"study", "proposal", "objects", "reasons"} for f in told)
    assert all(set(f["reasons"]) <= {*RULES, *REMARKS} for f in told)


def test_a_custodian_sees_the_figures(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for name, model in models(study).items():
        (tmp_path / name).write_bytes(model)
        where = str(study / "sites" / "alder")
        assert run(["site", "attack", str(study / "study.signed.json"), str(tmp_path / name), "--site", where]) == 0
        said[name] = capsys.readouterr().out
    assert "heart: this site objects to its release" in said["heart"]
    assert all(words in said["heart"] for words in ("attack by loss", "attack by scores", "members and", "rules membership"))
    assert "plain: this site does not object" in said["plain"]
    assert "and 0 persons held out" in said["nobody"]


def test_a_file_that_is_no_model_of_the_study_is_refused(study: Path, tmp_path: Path) -> None:
    whole = models(study)["plain"]
    signed, where = str(study / "study.signed.json"), study / "sites" / "birch"
    for wrong in (b"", whole[:-8], whole.replace(b'"plain"', b'"nobod"'), whole.replace(b"x0", b"x9")):
        (tmp_path / "wrong").write_bytes(wrong)
        assert run(["site", "attack", signed, str(tmp_path / "wrong"), "--site", str(where)]) == 94
    found = airlock.airlock(study / "runs" / "a").study
    with pytest.raises(ModelNotExported, match="another analysis"):
        verdict(opened(where), found, Proposed({"heart": ()}, "who", {"heart": whole}))


def test_a_word_about_one_model_is_none_about_another(study: Path) -> None:
    one, other = (Proposed({}, "who", {"plain": model}).identity for model in (b"a model", b"another"))
    assert one != other
