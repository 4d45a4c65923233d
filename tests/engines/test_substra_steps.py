"""The study's rounds as functions over bytes: the same answers as the in-process run, and the site's refusals."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples import prepare
from examples.consortium import prepared
from fivefold.cli.main import run
from fivefold.engines.substra.export import write_plan
from fivefold.engines.substra.steps import add, answer, carried, replayed, rounds_of
from fivefold.errors import EngineUnfit, FivefoldError, NotApproved, PolicyRefuses, ProtocolViolation
from fivefold.governance.withdrawals import keep_notice, own_notice, read_notice
from fivefold.protocol.encoding import decode
from fivefold.protocol.results import Result
from fivefold.records.audit import entries
from fivefold.replay.roster import roster_of
from fivefold.results.write import read_results
from fivefold.site.budget_book import load, place
from fivefold.site.folder import opened
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed
from tests.environments import environment

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("substra") / "breast"
    assert prepare.main(["breast", str(out)]) == 0
    shutil.copytree(out / "sites" / "elm", out / "elm")
    assert run(["run", str(out / "study.yaml"), "--out", str(out / "local"), "--quiet"]) == 0
    return out


def signed(out: Path) -> bytes:
    return (out / "study.signed.json").read_bytes()


@pytest.fixture(scope="module")
def histories(breast: Path) -> tuple[bytes, ...]:
    """What the sites were told before each round, and after the last."""
    study, history = load_signed(signed(breast)).study, b""
    told = [history]
    while replayed(study, history).open is not None:
        answers = [answer(signed(breast), breast / "sites" / s.name, history, NOW) for s in study.sites]
        told.append(history := add(signed(breast), answers, history))
    return tuple(told)


@pytest.fixture
def elm(breast: Path, tmp_path: Path) -> Path:
    """A copy of elm's folder, as it was before the first run."""
    return Path(shutil.copytree(breast / "elm", tmp_path / "elm"))


def rule(site: Path, before: str, after: str) -> None:
    """Another line in a site's policy; signed and the study approved anew."""
    text = (site / "site.yaml").read_text(encoding="utf-8")
    assert before in text
    text = re.sub(r"^version: (\d+)", lambda m: f"version: {int(m[1]) + 1}", text, flags=re.M).replace(before, after)
    (site / "site.yaml").write_text(text, encoding="utf-8")
    assert run(["site", "sign-policy", "--site", str(site)]) == 0


def approve(site: Path, study: Path) -> None:
    assert run(["site", "approve", str(study / "study.signed.json"), "--site", str(site), "--yes"]) == 0


def refused(kind: type[FivefoldError], study: Path, site: Path, history: bytes = b"") -> str:
    """The rule by which the site refuses; it is in the site's log as well."""
    with pytest.raises(kind) as found:
        answer(signed(study), site, history, NOW)
    last = list(entries(site / "state" / "audit.jsonl"))[-1]
    assert (last.event, last.facts["rule"]) == ("refused", found.value.rule)
    return found.value.rule


def test_the_numbers_are_those_of_the_in_process_run(breast: Path, histories: tuple[bytes, ...]) -> None:
    study, history = load_signed(signed(breast)).study, histories[-1]
    assert len(histories) - 1 <= rounds_of(study)
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


def test_a_site_that_does_not_permit_its_totals_refuses(breast: Path, elm: Path) -> None:
    rule(elm, "site_totals: permitted", "site_totals: refused")
    approve(elm, breast)
    assert refused(PolicyRefuses, breast, elm) == "site_totals"


# ---- what the site's node asks, a task asks ---------------------------------------------------------------------------
def test_a_study_that_names_another_key_for_the_site_is_refused(breast: Path, elm: Path) -> None:
    assert run(["site", "keys", "rotate", "node", "--site", str(elm)]) == 0
    assert refused(ProtocolViolation, breast, elm) == "own_key"


def test_the_persons_of_earlier_rounds_are_known(breast: Path, elm: Path, histories: tuple[bytes, ...]) -> None:
    rule(elm, "minimum_sites: 3", "minimum_sites: 3\ndegrees_of_freedom: 100000")
    approve(elm, breast)
    study = load_signed(signed(breast)).study
    fits = [h for h in histories[:-1] if (at := replayed(study, h)).open and at.open.method == "glm" and at.persons]
    assert fits
    answer(signed(breast), elm, b"", NOW)
    assert refused(PolicyRefuses, breast, elm, fits[-1]) == "degrees_of_freedom"


def test_an_exact_sum_marks_the_asset_in_the_budget_s_ledger(breast: Path, elm: Path) -> None:
    ledger = place(elm / "state", opened(elm).policy(NOW).asset)
    assert not ledger.exists()
    answer(signed(breast), elm, b"", NOW)
    (marked,) = load(ledger).entries
    assert marked.study == load_signed(signed(breast)).digest
    assert [event.mechanism for event in marked.events] == ["exact"]


def test_no_sum_with_a_site_that_withdrew(breast: Path, elm: Path, tmp_path: Path) -> None:
    fir = Path(shutil.copytree(breast / "sites" / "fir", tmp_path / "fir"))
    assert run(["site", "withdraw", str(breast / "study.signed.json"), "--site", str(fir)]) == 0
    found = load_signed(signed(breast))
    notice = own_notice(fir / "state", found.digest, "fir")
    keep_notice(elm / "state", read_notice(notice, found.digest, roster_of(found.study)))
    assert refused(NotApproved, breast, elm) == "peer_withdrew"


def test_an_app_that_the_policy_does_not_name_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"u": rng.normal(size=60), "ill": np.resize([0.0, 1.0], 60), "site": np.resize(["a", "b", "c"], 60)})
    variables = (Variable("u", "u", "number", minimum=-9, maximum=9), Variable("ill", "ill", "boolean"))
    options = {"app": "mlp", "digest": "0" * 64, "clip": 1.0, "rounds": 1, "learning_rate": 0.1, "model": {"kind": "logistic"}}
    prepared(tmp_path / "app", "app", frame, variables, [Analysis("app", "flower_app", "ill ~ u", options=options)])
    assert refused(PolicyRefuses, tmp_path / "app", tmp_path / "app" / "sites" / "a") == "steps"


# ---- what Substra cannot carry ----------------------------------------------------------------------------------------
def test_noise_for_the_sum_does_not_protect_one_site_s_answer(tmp_path: Path) -> None:
    out = tmp_path / "private"
    assert prepare.main(["breast", str(out), "private.yaml"]) == 0
    assert refused(EngineUnfit, out, out / "sites" / "elm") == "differential_privacy"
    assert run(["export", "substra", str(out / "study.yaml"), str(tmp_path / "plan")]) == EngineUnfit.exit_code
    assert not (tmp_path / "plan").exists()


def test_a_method_that_keeps_something_between_rounds_is_not_carried(breast: Path) -> None:
    study = load_signed(signed(breast)).study
    carried(study)
    with pytest.raises(EngineUnfit, match="scaffold keeps something") as found:
        carried(replace(study, analyses=(Analysis("s", "scaffold"),)))
    assert found.value.rule == "keeps_state"


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
