"""`fivefold simulate`: over made-up rows of a study file, marked as what it is, with errors that say what to write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.cli.main import run
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The training study of the breast example with any keys."""
    from fivefold.auth.keys import new_key, public_of

    text = (ROOT / "examples" / "breast" / "training.yaml").read_text("utf-8")
    text = re.sub(r'"<the (lead\'s )?key[^"]*>"', lambda _: f'"{public_of(new_key()).hex()}"', text)
    (tmp_path / "study.yaml").write_text(text, "utf-8")
    (tmp_path / "dictionary.yaml").write_bytes((ROOT / "examples" / "breast" / "dictionary.yaml").read_bytes())
    return tmp_path / "study.yaml"


def test_a_million_clients_and_a_result_that_says_it_is_simulated(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = study.parent / "simulated"
    asked = ["simulate", str(study), "--clients", "1000000", "--roster", "30", "--rounds", "2", "--partition", "dirichlet:0.3"]
    assert run([*asked, "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["study"]["simulation"] == {
        "clients": 1_000_000, "roster": 30, "rows": "rows made up from the dictionary, partitioned dirichlet:0.3",
        "secure_sum": False, "rounds": printed["study"]["rounds"], "governed": False,
    }  # fmt: skip
    for analysis in printed["analyses"]:
        assert analysis["sites"] == []
        assert any("no approval" in note for note in analysis["notes"])
    assert json.loads((out / "result.json").read_bytes()) == printed
    assert {"result.json", "tables", "plots"} == {p.name for p in out.iterdir()}
    assert run([*asked, "--out", str(out)]) == 51


def test_people_see_at_once_that_nothing_is_governed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", str(study), "--roster", "5", "--rounds", "1", "--secure", "--rows", "40"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A simulation: made clients, no site, no approval, no gate.")
    assert "5 of 1,000 clients a round" in said
    assert "secure sum among them" in said


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--partition", "dirichlet:many"], 85, "dirichlet:0.3"),
        (["--partition", "dirichlett:0.3"], 85, "dirichlet:0.3"),
        (["--partition", "natural"], 85, "--sites"),
        (["--clients", "10", "--roster", "11"], 85, "--roster"),
        (["--secure", "--roster", "200"], 85, "128"),
        (["--secure", "--engine", "ray"], 85, "one process"),
        (["--sites", "nowhere"], 21, "--made-up"),
        (["--clients", "0"], 2, "x>=1"),
    ],
)
def test_mistakes_are_sentences(
    study: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    assert run(["simulate", str(study), *options]) == code
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "Traceback" not in said


def test_rows_of_a_site_only_where_its_policy_permits_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, out = np.random.default_rng(4), tmp_path / "out"
    frame = pd.DataFrame({"u": rng.normal(size=90), "ill": np.resize([0.0, 1.0], 90), "site": np.repeat(["a", "b", "c"], 30)})
    variables = (Variable("u", "u", "number", minimum=-9, maximum=9), Variable("ill", "ill", "boolean"))
    options = {"rounds": 1, "learning_rate": 0.1, "evaluate_every": 1, "bins": 0, "model": {"kind": "logistic"}}
    prepared(out, "small", frame, variables, [Analysis("small", "fedavg", "ill ~ u", options=options)])
    asked = ["simulate", str(out / "study.yaml"), "--quiet", "--clients", "10", "--roster", "5"]
    assert run(asked) == 0
    policy = out / "sites" / "b" / "site.yaml"
    text = policy.read_text(encoding="utf-8").replace('"minimum_sites": 3', '"minimum_sites": 4')
    policy.write_text(text.replace('"version": 2', '"version": 3'), encoding="utf-8")
    assert run(["site", "sign-policy", "--site", str(policy.parent)]) == 0
    capsys.readouterr()
    assert run(asked) == 32
    assert "rule minimum_sites" in " ".join(capsys.readouterr().err.split())
    assert run([*asked, "--made-up"]) == 0
