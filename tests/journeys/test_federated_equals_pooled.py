"""A whole run through the real secure sum gives what one computer with all the rows would give; its records hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from examples import prepare
from fivefold.auth.keys import public_of, read_key
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Engine
from fivefold.engines.local import local_engine
from fivefold.errors import SiteRefused
from fivefold.protocol.results import Result
from fivefold.records.audit import verify
from fivefold.records.validation import profile_faults
from tests.journeys.consortium import SITES, Gone, Losing, engine, pooled, signed
from tests.records.conftest import validator as validator

LAST = 13
"""Rounds of the study when all sites answer."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("journey") / "breast"
    prepare.prepare("breast", out)
    return out


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


@pytest.fixture(scope="module")
def rows(prepared: Path) -> pd.DataFrame:
    return pooled(prepared)


def run(out: Path, over: Engine, *, folder: str = "run", resume: bool = False) -> session.Run:
    try:
        return session.run(signed(out), over, out / folder, tell=lambda _: None, engine_name="local", resume=resume)
    finally:
        over.close()


def result(done: session.Run, name: str) -> Result:
    found = done.results[name]
    assert isinstance(found, Result), found
    return found


def assert_glm(found: Result, rows: pd.DataFrame) -> None:
    """Coefficients and standard errors are statsmodels' over the rows of the sites that the result names."""
    here = rows[rows.site.isin(found.sites)]
    reference = smf.glm("malignant ~ radius + texture + symmetry", here, family=sm.families.Binomial())
    fit = reference.fit(tol=1e-13, tol_criterion="params", maxiter=100)
    table = found.tables["coefficients"]
    assert table.column("term") == ("intercept", "radius", "texture", "symmetry")
    np.testing.assert_allclose(table.column("estimate"), fit.params, rtol=1e-8)
    np.testing.assert_allclose(table.column("standard_error"), fit.bse, rtol=1e-8)
    assert found.facts["persons"] == fit.nobs


def assert_statistics(found: Result, rows: pd.DataFrame) -> None:
    here = rows[rows.site.isin(found.sites)]
    assert found.facts["rows"] == len(here)
    numbers = found.tables["numbers"]
    names = list(numbers.column("variable"))
    assert names == ["radius", "texture", "symmetry", "area"]
    assert list(numbers.column("n")) == here[names].count().tolist()
    assert list(numbers.column("missing")) == here[names].isna().sum().tolist()
    np.testing.assert_allclose(numbers.column("mean"), here[names].mean(), rtol=1e-12)
    np.testing.assert_allclose(numbers.column("variance"), here[names].var(), rtol=1e-12)
    categories = found.tables["categories"]
    for variable in ("malignant", "size"):
        counts = here[variable].value_counts().sort_index().tolist()
        shown = zip(categories.column("variable"), categories.column("persons"), strict=True)
        assert [persons for name, persons in shown if name == variable] == counts
    cross = pd.crosstab(here["size"], here.malignant).to_numpy().ravel()
    cells = found.tables["size_by_malignant"].column("persons")
    assert [n for n in cells if n is not None] == [int(c) for n, c in zip(cells, cross, strict=True) if n is not None]


def assert_logs_hold(out: Path, folder: Path) -> None:
    report = verify(folder / "audit.jsonl", public_of(read_key(folder / "coordinator.key")))
    assert report.closed
    assert report.beyond_head == 0
    for site in SITES:
        home = out / "sites" / site
        found = verify(home / "state" / "audit.jsonl", public_of(read_key(home / "keys" / "node.key")))
        assert found.owner == site
        assert found.events["unmask"] >= 1


def test_all_sites_answer(breast: Path, rows: pd.DataFrame) -> None:
    done = run(breast, engine(breast))
    assert done.rounds == LAST
    for name in ("description", "malignancy"):
        assert result(done, name).sites == SITES
        assert result(done, name).dropped == ()
    assert_statistics(result(done, "description"), rows)
    assert_glm(result(done, "malignancy"), rows)
    assert_logs_hold(breast, done.folder)


@pytest.mark.parametrize(("trip", "round"), [("ask", 6), ("ask", 8), ("unmask", 7)])
def test_a_site_that_drops_in_one_round_comes_back(breast: Path, rows: pd.DataFrame, trip: str, round: int) -> None:
    """Lost in the first trip it is not in this round's sum; lost in the last, it has shared nothing for the next round's."""
    done = run(breast, Losing(engine(breast), {"cedar"}, {trip}, {round}))
    found = result(done, "malignancy")
    assert found.dropped == ("cedar",)
    assert found.sites == SITES
    assert_glm(found, rows)
    assert_statistics(result(done, "description"), rows)
    assert_logs_hold(breast, done.folder)


@pytest.mark.parametrize("trip", ["open", "enrol", "share"])
def test_a_site_that_never_comes_leaves_the_pooled_fit_of_the_others(breast: Path, rows: pd.DataFrame, trip: str) -> None:
    done = run(breast, Losing(engine(breast), {"elm"}, {trip}, range(1, 100)))
    for name in ("description", "malignancy"):
        found = result(done, name)
        assert found.dropped == ("elm",)
        assert found.sites == tuple(s for s in SITES if s != "elm")
    assert_glm(result(done, "malignancy"), rows)
    assert_statistics(result(done, "description"), rows)


@pytest.mark.parametrize(("trip", "round"), [("ask", 6), ("survivors", 6), ("unmask", 6), ("ask", LAST)])
def test_a_site_that_leaves_during_the_fit(breast: Path, rows: pd.DataFrame, trip: str, round: int) -> None:
    done = run(breast, Gone(engine(breast), "birch", trip, round))
    found = result(done, "malignancy")
    assert found.dropped == ("birch",)
    assert found.sites == tuple(s for s in SITES if s != "birch")
    assert_glm(found, rows)
    assert result(done, "description").sites == SITES
    assert_logs_hold(breast, done.folder)


@pytest.mark.parametrize("round", [2, 3])
def test_a_site_that_leaves_during_the_description(breast: Path, rows: pd.DataFrame, round: int) -> None:
    done = run(breast, Losing(engine(breast), {"fir"}, {"ask"}, range(round, 100)))
    found = result(done, "description")
    assert found.dropped == ("fir",)
    assert found.sites == SITES[:4]
    assert_statistics(found, rows)
    assert_glm(result(done, "malignancy"), rows)


@pytest.mark.parametrize("trip", ["survivors", "unmask"])
def test_a_site_lost_after_its_update_is_still_in_the_sum(breast: Path, rows: pd.DataFrame, trip: str) -> None:
    done = run(breast, Gone(engine(breast), "alder", trip, LAST))
    assert result(done, "malignancy").sites == SITES
    assert result(done, "malignancy").dropped == ()
    assert_glm(result(done, "malignancy"), rows)
    assert_logs_hold(breast, done.folder)


@pytest.fixture(scope="module")
def refusing(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same consortium, whose custodians have approved without permitting that their own totals show."""
    out = shutil.copytree(prepared, tmp_path_factory.mktemp("refusing") / "breast")
    for site in SITES:
        prepare.fivefold(
            "site", "approve", out / "study.signed.json", "--site", out / "sites" / site, "--site-totals", "refused", "--yes"
        )
    return out


@pytest.mark.parametrize(("trip", "round"), [("enrol", 1), ("share", 1), ("ask", 6), ("unmask", 6)])
def test_without_permission_for_site_totals_a_drop_out_ends_in_a_refusal(
    refusing: Path, tmp_path: Path, trip: str, round: int
) -> None:
    """Whatever the trip in which it is lost, two sums would differ by cedar alone: one has it and one does not."""
    out = shutil.copytree(refusing, tmp_path / "breast")
    with pytest.raises(SiteRefused) as refused:
        run(out, Losing(engine(out), {"cedar"}, {trip}, {round}))
    assert refused.value.rule == "class_rule"
    assert "class_rule" in refused.value.message
    for site in SITES:
        verify(out / "sites" / site / "state" / "audit.jsonl")
    assert not (out / "run" / "result.json").exists()
    if round == 1:
        return  # cedar was never in a sum, and can be in none from now on
    done = run(out, engine(out), resume=True)  # cedar is back: nothing was lost
    assert result(done, "malignancy").sites == SITES
    assert_glm(result(done, "malignancy"), pooled(out))
    assert_logs_hold(out, done.folder)


@pytest.mark.parametrize("name", prepare.NAMES)
def test_the_research_package_is_accepted(name: str, tmp_path: Path, validator: Path) -> None:
    out = tmp_path / name
    prepare.prepare(name, out)
    it = signed(out)
    over = local_engine(out / "sites", tuple(s.name for s in it.study.sites))
    done = session.run(it, over, out / "run", tell=lambda _: None, engine_name="local", resume=False)
    for analysis in it.study.analyses:
        assert isinstance(done.results[analysis.name], Result)
    assert profile_faults(done.folder, validator) == []
