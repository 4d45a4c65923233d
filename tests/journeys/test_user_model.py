"""A user's own model code from the study file to the result: refused by default, shown whole, bound by digest, run confined."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.auth.keys import read_key
from fivefold.cli.main import run as command
from fivefold.coordinator import session
from fivefold.engines.local import local_engine
from fivefold.errors import NotApproved, SiteRefused, StudyInvalid
from fivefold.governance.approvals import approve
from fivefold.models.user_code import digest_of
from fivefold.protocol.results import Result
from fivefold.site.folder import opened
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed
from fivefold.study.yaml import load

SITES = ("alder", "birch", "cedar")
SOURCE = """import numpy as np

def score(weights, x):
    return x @ weights["slope"] + weights["constant"][0]

def predict(weights, x):
    return 1 / (1 + np.exp(-score(weights, x)))[:, None]

def loss_and_gradient(weights, x, y):
    s = score(weights, x)
    residual = 1 / (1 + np.exp(-s)) - y
    loss = np.mean(np.logaddexp(0, s) - y * s)
    return loss, {"slope": x.T @ residual / len(y), "constant": np.array([residual.mean()])}
"""
OWN = {"kind": "code", "source": SOURCE, "digest": digest_of(SOURCE), "shapes": {"slope": [2], "constant": [1]}}


def frame() -> pd.DataFrame:
    r = np.random.default_rng(6)
    x = r.normal(size=(150, 2))
    ill = (x[:, 0] - x[:, 1] + r.logistic(size=150) > 0).astype(float)
    return pd.DataFrame({"u": x[:, 0], "v": x[:, 1], "ill": ill, "site": np.resize(SITES, 150)})


def consortium(out: Path, source: str = SOURCE, **policy: object) -> Path:
    options = {"rounds": 2, "learning_rate": 0.5, "evaluate_every": 2, "bins": 0}
    own = {**OWN, "source": source, "digest": digest_of(source)}
    asked = (
        Analysis("own", "fedavg", "ill ~ u + v", options={**options, "model": own}),
        Analysis("theirs", "fedavg", "ill ~ u + v", options={**options, "model": {"kind": "logistic"}}),
    )
    variables = (*(Variable(n, n, "number", minimum=-9, maximum=9) for n in "uv"), Variable("ill", "ill", "boolean"))
    prepared(out, "own", frame(), variables, asked, policy=policy)
    return out


def ran(out: Path) -> session.Run:
    signed, engine = load_signed(out / "study.signed.json"), local_engine(out / "sites", SITES)
    return session.run(signed, engine, out / "run", tell=lambda _: None, engine_name="local", resume=False)


def test_code_that_policy_and_custodian_admit_gives_what_the_built_in_model_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = consortium(tmp_path / "out", user_models="permitted")
    capsys.readouterr()
    assert command(["site", "approve", str(out / "study.signed.json"), "--site", str(out / "sites" / "alder"), "--yes"]) == 0
    shown = capsys.readouterr().out
    assert OWN["digest"] in shown
    lines = [m[1].rstrip() for m in re.finditer(r"^ +\d+ │ (.*)$", shown, re.M)]
    assert lines == SOURCE.splitlines()  # the whole of it
    done = ran(out)
    own, theirs = done.results["own"], done.results["theirs"]
    assert isinstance(own, Result), own
    assert isinstance(theirs, Result)
    assert own.facts["accuracy"] == theirs.facts["accuracy"]
    assert own.facts["loss"] == pytest.approx(theirs.facts["loss"], abs=1e-2)  # they begin at other weights


def test_without_the_policy_s_word_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        consortium(tmp_path / "out")
    said = capsys.readouterr()
    assert "user_models" in said.err
    assert "model code of its own" in said.err


def test_an_approval_of_other_analyses_does_not_let_the_code_run(tmp_path: Path) -> None:
    out = consortium(tmp_path / "out", user_models="permitted")
    signed = load_signed(out / "study.signed.json")
    folder = opened(out / "sites" / "birch")
    key = read_key(folder.path / "keys" / "custodian.key")
    given = approve(folder.path, signed.study, signed.digest, key, analyses=["theirs"])
    assert given.code == ()
    own = signed.study.analyses[0]
    with pytest.raises(NotApproved) as refused:
        given.allow_code(own)
    assert refused.value.rule == "code_not_approved"
    given.allow_code(signed.study.analyses[1])


def test_code_that_reaches_out_stops_its_run(tmp_path: Path) -> None:
    """What it tried to read stays unread; the coordinator learns the error's name and rule alone."""
    source = SOURCE.replace("    s = score", "    open('/etc/hostname').read()\n    s = score", 1)
    out = consortium(tmp_path / "out", source, user_models="permitted")
    with pytest.raises(SiteRefused, match=r"alder: CodeFailed \(code_failed\)") as stopped:
        ran(out)
    assert "hostname" not in stopped.value.message


def test_a_file_beside_the_study_becomes_source_and_digest(tmp_path: Path) -> None:
    out = consortium(tmp_path / "out", user_models="permitted")
    text = (out / "study.yaml").read_text()
    (out / "network.py").write_text(SOURCE)
    study = json.loads(text)
    study["analyses"][0]["options"]["model"] = {"kind": "code", "file": "network.py", "shapes": OWN["shapes"]}
    (out / "study.yaml").write_text(json.dumps(study))
    model = load(out / "study.yaml").analyses[0].options["model"]
    assert (model["source"], model["digest"]) == (SOURCE, OWN["digest"])
    assert "file" not in model
    study["analyses"][0]["options"]["model"]["file"] = "none.py"
    (out / "study.yaml").write_text(json.dumps(study))
    with pytest.raises(StudyInvalid, match=r"none\.py"):
        load(out / "study.yaml")
