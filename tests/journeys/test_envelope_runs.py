"""Variations within the envelope are answered without a new approval, logged and charged at each site; others are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from examples import prepare
from fivefold.auth.keys import read_key, sign
from fivefold.cli.main import run as fivefold_here
from fivefold.engines.local import local_engine
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Place
from fivefold.records.audit import entries, verify
from fivefold.results.write import comparable, read_json, read_results
from fivefold.site.envelope_book import book, charged
from fivefold.study.definition import Analysis
from fivefold.study.digest import canonical_json
from fivefold.study.envelope import PURPOSE, Variation
from tests.journeys.consortium import SITES, pooled, signed
from tests.journeys.hostile import first


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("envelope") / "breast"
    prepare.prepare("breast", out)
    return out


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


def vary(out: Path, name: str, formula: str, **more: str) -> Path:
    words = ["study", "vary", out / "study.signed.json", "--analysis", "malignancy", "--name", name, "--formula", formula]
    words += ["--key", out / "lead.key"] + [w for k, v in more.items() for w in (f"--{k}", v)]
    assert fivefold_here([str(w) for w in words]) == 0
    return out / f"study.{name}.variation.json"


def go(out: Path, *words: object) -> int:
    return fivefold_here(["run", str(out / "study.yaml"), *map(str, words), "--quiet"])


def events(out: Path, site: str, event: str) -> list[dict[str, object]]:
    log = out / "sites" / site / "state" / "audit.jsonl"
    verify(log)
    return [dict(e.facts) for e in entries(log) if e.event == event]


def test_a_variation_is_answered_logged_and_charged_once(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = vary(breast, "by-area", "malignant ~ area + texture")
    two = vary(breast, "by-radius", "malignant ~ radius")
    three = vary(breast, "third", "malignant ~ symmetry")
    assert go(breast, "--vary", one, "--vary", two, "--vary", three, "--out", breast / "run") == 0

    rows = pooled(breast)[["malignant", "area", "texture"]].dropna()
    reference = sm.GLM(rows.malignant, sm.add_constant(rows[["area", "texture"]]), family=sm.families.Binomial()).fit(tol=1e-14)
    results = read_results(breast / "run")
    assert list(results) == ["by-area", "by-radius", "third"], "in place of the study's own analyses"
    np.testing.assert_allclose(results["by-area"].tables["coefficients"].column("estimate"), reference.params, rtol=1e-8)
    about = read_json(breast / "run")["study"]["variations"]
    assert [(v["name"], v["varies"]) for v in about] == [(n, "malignancy") for n in ("by-area", "by-radius", "third")]
    crate = json.loads((breast / "run" / "ro-crate-metadata.json").read_text("utf-8"))
    assert "variations/001.by-area.variation.json" in {e["@id"] for e in crate["@graph"]}

    study = signed(breast)
    for site in SITES:
        assert [c.name for c in charged(book(breast / "sites" / site / "state", study.digest))] == [
            "by-area",
            "by-radius",
            "third",
        ]
        told = events(breast, site, "variation charged")
        assert [(f["analysis"], f["varies"]) for f in told] == [(v["name"], v["varies"]) for v in about]
        assert {f["statement"] for f in told} == {v["statement"] for v in about}

    # The same statement in another run tells nothing new, and is not charged again.
    assert go(breast, "--vary", one, "--out", breast / "again") == 0
    assert read_json(breast / "again")["analyses"][0] == read_json(breast / "run")["analyses"][0]
    assert all(len(events(breast, site, "variation charged")) == 3 for site in SITES)

    # Three are all that the study's envelope allows.
    capsys.readouterr()
    assert go(breast, "--vary", vary(breast, "fourth", "malignant ~ area"), "--out", breast / "fourth") == 37
    said = capsys.readouterr().err.replace("\n", " ")
    assert "alder: NotApproved (envelope_fits)" in said
    assert said.count("✗") == 1
    for site in SITES:
        assert events(breast, site, "refused")[-1]["rule"] == "envelope_fits"
    refusals = [e.facts["rule"] for e in entries(breast / "fourth" / "audit.jsonl") if e.event == "refusal"]
    assert set(refusals) == {"envelope_fits"}


def test_a_run_goes_on_with_its_own_variations(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = vary(breast, "one", "malignant ~ area"), vary(breast, "two", "malignant ~ radius")
    assert go(breast, "--vary", one, "--out", breast / "run") == 0
    before = comparable(breast / "run")
    (breast / "run" / "result.json").unlink()
    assert go(breast, "--resume", breast / "run") == 0
    assert comparable(breast / "run") == before
    capsys.readouterr()
    assert go(breast, "--resume", breast / "run", "--vary", two) == 51
    assert "a run of other variations" in capsys.readouterr().err


def test_what_lies_outside_is_refused_at_the_command_line(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "vary", str(breast / "study.signed.json"), "--analysis", "malignancy", "--name", "x", "--key",
             str(breast / "lead.key")]  # fmt: skip
    assert fivefold_here([*words, "--formula", "malignant ~ size"]) == 31
    assert "'size' is not in the study's envelope" in capsys.readouterr().err
    forged = forge(breast, Analysis("x", "glm", "malignant ~ size", options={"family": "binomial"}))
    (breast / "x.json").write_bytes(forged)
    assert go(breast, "--vary", breast / "x.json", "--out", breast / "run") == 31
    assert not (breast / "run").exists()
    good = vary(breast, "good", "malignant ~ area")
    assert go(breast, "--vary", good, "--vary", good, "--out", breast / "run") == 12


def forge(out: Path, analysis: Analysis, key: str = "lead.key") -> bytes:
    """A variation signed without looking at the envelope."""
    unsigned = json.loads(Variation(signed(out).digest, "malignancy", analysis, bytes(64)).to_bytes())
    del unsigned["signature"]
    signature = sign(read_key(out / key), canonical_json(unsigned), PURPOSE)
    return Variation(signed(out).digest, "malignancy", analysis, signature).to_bytes()


GLM = Analysis("x", "glm", "malignant ~ area", options={"family": "binomial"})


@pytest.mark.parametrize(
    ("analysis", "key", "code", "rule"),
    [
        (dataclasses.replace(GLM, formula="malignant ~ size"), "lead.key", "NotApproved", "envelope_variables"),
        (dataclasses.replace(GLM, method="cox"), "lead.key", "NotApproved", "envelope_methods"),
        (dataclasses.replace(GLM, subgroup="radius > 20"), "lead.key", "NotApproved", "envelope_subgroups"),
        (dataclasses.replace(GLM, options={"family": "gaussian"}), "lead.key", "NotApproved", "envelope_options"),
        (dataclasses.replace(GLM, name="malignancy"), "lead.key", "NotApproved", "envelope_name"),
        (GLM, "sites/elm/keys/node.key", "SignatureWrong", "variation_signature"),
    ],
)
def test_a_site_judges_a_variation_itself(breast: Path, analysis: Analysis, key: str, code: str, rule: str) -> None:
    """The coordinator sends what the command line would never send."""
    engine, study = local_engine(breast / "sites", SITES), signed(breast)
    opening = m.Open(study.to_bytes(), (forge(breast, analysis, key),))
    place = Place(study.digest, "run1", 1, 1)
    for name, reply in engine.exchange(dict.fromkeys(SITES, m.request(place, opening))):
        refusal = m.Refusal.decode(first(reply).body)
        assert (refusal.code, refusal.rule) == (code, rule)
        assert events(breast, name, "refused")[-1]["rule"] == rule
        assert charged(book(breast / "sites" / name / "state", study.digest)) == ()
    engine.close()


def test_a_run_keeps_the_variations_that_it_was_opened_with(breast: Path) -> None:
    study, place = signed(breast), Place(signed(breast).digest, "run1", 1, 1)
    good = forge(breast, GLM)
    other = forge(breast, dataclasses.replace(GLM, name="y"))
    for again in (
        local_engine(breast / "sites", ("elm",)),
        local_engine(breast / "sites", ("elm",)),
    ):  # before and after a restart
        for statements, kind in (((good,), "opened"), ((other,), "refusal"), ((), "refusal")):
            ((_, reply),) = again.exchange({"elm": m.request(place, m.Open(study.to_bytes(), statements))})
            assert first(reply).kind == kind
        again.close()
    assert [f["rule"] for f in events(breast, "elm", "refused")] == ["run_plan"] * 4


def test_an_analysis_that_was_not_approved_cannot_be_varied(breast: Path) -> None:
    elm = breast / "sites" / "elm"
    words = ["site", "approve", breast / "study.signed.json", "--site", elm, "--analysis", "description", "--yes"]
    assert fivefold_here([str(w) for w in words]) == 0
    one = vary(breast, "one", "malignant ~ area")
    assert go(breast, "--vary", one, "--out", breast / "run") == 0
    assert read_json(breast / "run")["analyses"][0]["dropped"] == ["elm"]
    assert events(breast, "elm", "refused")[0]["rule"] == "analysis_not_approved"
    assert charged(book(elm / "state", signed(breast).digest)) == ()
