"""A training of noisy steps at each site, end to end through the secure sum: noise, charge, promise, and the end of its ε."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import prepare
from fivefold.coordinator import session
from fivefold.errors import SiteRefused
from fivefold.governance.study_check import check
from fivefold.governance.study_estimate import estimate, what_if
from fivefold.privacy.dp.accounting import spent
from fivefold.privacy.dp.events import epsilon_of
from fivefold.protocol.results import Result
from fivefold.site.budget import curve_of
from fivefold.site.budget_book import load
from tests.journeys.consortium import SITES, approve_anew, engine, sign_anew, signed


def test_a_run_of_noisy_steps(tmp_path: Path) -> None:
    out = tmp_path / "breast"
    prepare.prepare("breast", out, "private.yaml")
    text = (out / "study.yaml").read_text("utf-8").replace("method: fedopt", "method: fedavg")
    for line in ("optimiser: adam", "server_rate: 0.3", "beta1: 0.5"):
        text = text.replace(f"      {line}\n", "")
    text = text.replace("rounds: 12\n", "rounds: 4\n      local_steps: 15\n      sampling: 0.3\n      learning_rate: 3.0\n")
    sign_anew(out, text.replace("evaluate_every: 12", "evaluate_every: 4"))
    approve_anew(out, "--site-totals", "refused")
    study = signed(out).study
    whole = estimate(study)
    assert whole.epsilon is not None
    assert whole.epsilon <= 3.0
    assert what_if(whole) is None  # a table by rounds would not say what steps cost
    over = engine(out)
    try:
        done = session.run(signed(out), over, out / "run", tell=lambda _: None, engine_name="local", resume=False)
    finally:
        over.close()
    adam = done.results["adam"]
    assert isinstance(adam, Result), adam
    assert float(adam.facts["auc"]) > 0.6
    print(dict(adam.facts.items()))
    epsilon = spent(done.rounds - 4, 5.9, 1e-5, [(60, 0.3)])
    assert float(str(adam.facts["privacy"]).split()[2]) == pytest.approx(epsilon, rel=0.01)
    assert whole.epsilon == pytest.approx(epsilon, rel=1e-9)
    for site in SITES:
        (ledger,) = (out / "sites" / site / "state" / "budget").glob("*.ledger")
        book = load(ledger)
        events = [e.events[0] for e in book.entries]
        assert [(e.count, e.sampling) for e in events if e.mechanism == "sampled_gaussian"] == [(15, 0.3)] * 4
        assert epsilon_of(curve_of(book.entries), 1e-5) == pytest.approx(epsilon, rel=1e-6)
    assert not check(out / "study.yaml").faults
    low = text.replace("epsilon: 3.0", "epsilon: 0.5")
    (out / "study.yaml").write_text(low, "utf-8")
    assert any("cost ε" in fault.what for fault in check(out / "study.yaml").faults)
    over = engine(out)
    try:
        with pytest.raises(SiteRefused) as refused:  # the study's ε is of all its runs
            session.run(signed(out), over, out / "again", tell=lambda _: None, engine_name="local", resume=False)
    finally:
        over.close()
    assert refused.value.rule == "study_epsilon"
