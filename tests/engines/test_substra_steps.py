"""The study's rounds as functions over bytes: the same answers as the in-process run, and the site's refusals."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from examples import prepare
from fivefold.cli.main import run
from fivefold.engines.substra.export import write_plan
from fivefold.engines.substra.steps import add, answer, replayed, rounds_of
from fivefold.errors import PolicyRefuses
from fivefold.protocol.encoding import decode
from fivefold.protocol.results import Result
from fivefold.results.write import read_results
from fivefold.study.digest import load_signed
from tests.environments import environment

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("substra") / "breast"
    assert prepare.main(["breast", str(out)]) == 0
    assert run(["run", str(out / "study.yaml"), "--out", str(out / "local"), "--quiet"]) == 0
    return out


def signed(out: Path) -> bytes:
    return (out / "study.signed.json").read_bytes()


def test_the_numbers_are_those_of_the_in_process_run(breast: Path) -> None:
    study, history = load_signed(signed(breast)).study, b""
    rounds = 0
    while replayed(study, history).open is not None:
        answers = [answer(signed(breast), breast / "sites" / s.name, history, NOW) for s in study.sites]
        history, rounds = add(signed(breast), answers, history), rounds + 1
    assert rounds <= rounds_of(study)
    done = [decode(answer(signed(breast), breast / "sites" / s.name, history, NOW)) for s in study.sites]
    assert {d["round"] for d in done} == {0}
    assert add(signed(breast), [], history) == history
    results, local = replayed(study, history).results, read_results(breast / "local")
    for name, expected in local.items():
        result = results[name]
        assert isinstance(result, Result)
        for title, table in expected.tables.items():
            for column in table.columns:
                got, want = result.tables[title].column(column), table.column(column)
                for a, b in zip(got, want, strict=True):
                    if isinstance(a, float) and isinstance(b, float):
                        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
                    else:
                        assert a == b


def test_each_answer_is_in_the_sites_own_log(breast: Path) -> None:
    answer(signed(breast), breast / "sites" / "elm", b"", NOW)
    entries = (breast / "sites" / "elm" / "state" / "audit.jsonl").read_text()
    assert '"substra"' in entries


def test_a_site_that_does_not_permit_its_totals_refuses(tmp_path: Path) -> None:
    out = tmp_path / "breast"
    assert prepare.main(["breast", str(out)]) == 0
    elm = out / "sites" / "elm"
    policy = (elm / "site.yaml").read_text(encoding="utf-8")
    assert "site_totals: permitted" in policy
    policy = re.sub(r"^version: (\d+)", lambda m: f"version: {int(m[1]) + 1}", policy, flags=re.M)
    policy = policy.replace("site_totals: permitted", "site_totals: refused")
    (elm / "site.yaml").write_text(policy, encoding="utf-8")
    assert run(["site", "sign-policy", "--site", str(elm)]) == 0
    assert run(["site", "approve", str(out / "study.signed.json"), "--site", str(elm), "--yes"]) == 0
    with pytest.raises(PolicyRefuses) as refused:
        answer(signed(out), elm, b"", NOW)
    assert refused.value.rule == "site_totals"


def test_the_export_holds_the_study_and_needs_no_substra(breast: Path, tmp_path: Path) -> None:
    assert run(["export", "substra", str(breast / "study.yaml"), str(tmp_path / "plan")]) == 0
    assert (tmp_path / "plan" / "study.signed.json").read_bytes() == signed(breast)
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["rounds"] >= 11
    assert run(["export", "substra", str(breast / "study.yaml"), str(tmp_path / "plan")]) == 51


def test_a_plan_runs_in_substras_subprocess_mode(breast: Path, tmp_path: Path) -> None:
    """Two rounds of it, each task a process of its own: what is still to be asked is said."""
    write_plan(load_signed(signed(breast)), tmp_path / "plan", rounds=1)
    python = environment("substra") / "python"
    words = ["-m", "fivefold.engines.substra.plan", tmp_path / "plan", "--sites", breast / "sites", "--out", tmp_path / "run"]
    done = subprocess.run([python, *words], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert "still asks after 1" in done.stderr, done.stderr[-2000:]
