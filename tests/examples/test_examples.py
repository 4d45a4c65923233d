"""The example studies: their sites' own columns, units and codes become the pooled data again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples import prepare
from examples.breast import data as breast
from examples.digits import data as digits
from examples.lung import data as lung
from fivefold.site.folder import SiteFolder
from fivefold.site.preparation import open_prepared
from fivefold.study.digest import SignedStudy, load_signed
from fivefold.study.table import Table

ROOT = Path(prepare.__file__).parent.parent
POOLED = {"lung": lung.pooled, "breast": breast.pooled, "digits": digits.pooled}


@pytest.fixture(scope="module", params=prepare.NAMES)
def consortium(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("consortium") / request.param
    assert prepare.main([request.param, str(out)]) == 0
    return request.param, out


def signed(out: Path) -> SignedStudy:
    return load_signed(out / "study.signed.json")


def table(out: Path, site: str) -> Table:
    it = signed(out)
    return open_prepared(SiteFolder(out / "sites" / site), it.study, it.digest).table


def test_each_snapshot_is_the_sites_part_of_the_pooled_data(consortium: tuple[str, Path]) -> None:
    name, out = consortium
    frame, _ = POOLED[name]()
    dictionary = signed(out).study.dictionary
    rows = 0
    for site, part in frame.groupby("site"):
        got = table(out, str(site))
        rows += len(got)
        expected = part.sort_values(signed(out).study.person)
        for variable in dictionary.variables.values():
            column = expected[variable.name]
            if variable.type == "category":
                column = column.map({code: i for i, code in enumerate(variable.levels)})
            order = np.argsort(got.person, kind="stable")
            np.testing.assert_allclose(got[variable.name][order], column.to_numpy(dtype=float), rtol=1e-13)
    assert rows == len(frame)


def test_nothing_is_out_of_range_or_unknown(consortium: tuple[str, Path]) -> None:
    _, out = consortium
    it = signed(out)
    for site in it.study.sites:
        report = open_prepared(SiteFolder(out / "sites" / site.name), it.study, it.digest).report
        for variable in report["variables"]:
            assert not any(variable[fault] for fault in ("out_of_type", "out_of_range", "unknown_code", "not_finite")), variable


def test_the_patient_without_an_institution_is_counted() -> None:
    frame, said = lung.pooled()
    assert len(frame) == 227
    assert said.startswith("1 of 228 patients")
    assert int(frame.died.sum()) == 164


def test_hospitals_disagree_on_everything() -> None:
    frame, _ = breast.pooled()
    headings = {site: tuple(breast.as_held(site, part).columns) for site, part in frame.groupby("site")}
    assert len(set(headings.values())) == 5
    means = pd.Series({s: breast.as_held(s, p).select_dtypes("number").iloc[:, 0].mean() for s, p in frame.groupby("site")})
    assert means.max() / means.min() > 1e5


def test_a_second_preparation_changes_nothing(consortium: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, out = consortium
    before = (out / "study.signed.json").read_bytes()
    assert prepare.main([name, str(out)]) == 0
    assert "prepared already" in capsys.readouterr().out
    assert (out / "study.signed.json").read_bytes() == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert prepare.main(["lung", str(tmp_path)]) == 2
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_no_private_key_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / f for f in listed.split("\0") if f]
    assert len(files) > 50
    for file in files:
        assert file.suffix not in (".key", ".pem"), file
        if file.exists():
            assert b"-----BEGIN PRIV" + b"ATE KEY" not in file.read_bytes(), file


def test_every_mapped_variable_is_the_dictionarys(consortium: tuple[str, Path]) -> None:
    _, out = consortium
    it = signed(out).study
    for site in it.sites:
        assert set(SiteFolder(out / "sites" / site.name).mapping().variables) == set(it.dictionary.variables)
