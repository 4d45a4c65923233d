"""`fivefold site budget`: what the custodian sees of the asset's budget, as a table, as values and as a figure."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fivefold.cli.main import run
from fivefold.privacy.dp.events import Event
from fivefold.privacy.dp.words import up
from fivefold.site.budget import Release, ledger_of, mark_exact, reserve
from fivefold.site.budget_view import bar, down
from fivefold.site.folder import SiteFolder, create

STUDIES = {"1" * 64: ("Blood pressure", 4, 40.0), "2" * 64: ("Cell [nuclei]", 2, 20.0)}


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    made = create(tmp_path / "basel", "basel", policy={"budget": {"epsilon": 3.0, "delta": 1e-6}})
    policy = made.policy()
    with made.audit() as log:
        for study, (title, answers, z) in STUDIES.items():
            for i in range(answers):
                one = Release(study, "run", i, f"{i:064x}", ("basel", "bern", "genf"), z, title=title)
                reserve(made.state, policy, one, (Event("discrete_gaussian", z),), log)
        mark_exact(made.state, policy, Release("3" * 64, "run", 1, "0" * 64, (), 0.0, title="Survival"), log)
    return made


def call(*arguments: object) -> int:
    return run([str(a) for a in arguments])


def test_the_values(site: SiteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("site", "budget", "--site", site.path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cap"] == {"epsilon": 3.0, "delta": 1e-6}
    assert [(s["title"], s["answers"], s["exact"]) for s in found["studies"]] == [
        ("Blood pressure", 4, False), ("Cell [nuclei]", 2, False), ("Survival", 0, True),
    ]  # fmt: skip
    assert found["spent"] + found["left"] == pytest.approx(3.0)
    assert sum(s["share"] for s in found["studies"]) == pytest.approx(found["share"])
    assert max(s["epsilon"] for s in found["studies"]) < found["spent"] < sum(s["epsilon"] for s in found["studies"])
    assert found["exact"]
    assert found["charges"] == 7


def test_the_table_and_what_the_numbers_mean(
    site: SiteFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIVEFOLD_SITE", str(site.path))
    assert call("site", "budget") == 0
    shown = capsys.readouterr().out
    for words in ("basel-records", "of 3; left", "Blood pressure", "Cell [nuclei]", "Exact sums have left", "█", "░"):
        assert words in shown
    for landmark in ("ε = 1: ", "ε = 3: ", "ε = 10: "):
        assert landmark in shown


def test_a_site_without_a_charge_and_one_without_a_cap(
    site: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create(tmp_path / "new", "bern", policy={"budget": {"epsilon": 1.0, "delta": 1e-7}})
    assert call("site", "budget", "--site", tmp_path / "new", "--plot", tmp_path / "new.svg") == 0
    shown = capsys.readouterr().out
    assert "nothing was charged yet" in shown
    assert "left ε = 1.00" in shown
    create(tmp_path / "free", "genf", policy={"budget": None})
    assert call("site", "budget", "--site", tmp_path / "free") == 0
    assert "declares no cap" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_figure_is_drawn_and_the_same_twice(site: SiteFolder, tmp_path: Path, kind: str) -> None:
    assert call("site", "budget", "--site", site.path, "--plot", tmp_path / f"one.{kind}") == 0
    assert call("site", "budget", "--site", site.path, "--plot", tmp_path / f"two.{kind}") == 0
    drawn = (tmp_path / f"one.{kind}").read_bytes()
    assert drawn == (tmp_path / f"two.{kind}").read_bytes()
    if kind == "svg":
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
    else:
        assert drawn.startswith(b"\x89PNG")


def test_another_kind_of_file_is_a_sentence(site: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("site", "budget", "--site", site.path, "--plot", tmp_path / "one.gif") == 2
    assert ".svg or .png" in capsys.readouterr().err


def test_an_older_copy_is_refused(site: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = site.policy()
    book = ledger_of(site.state, policy)
    shutil.copy(book, tmp_path / "old")
    with site.audit() as log:
        one = Release("4" * 64, "run", 1, "0" * 64, ("basel",), 40.0)
        reserve(site.state, policy, one, (Event("discrete_gaussian", 40.0),), log)
    shutil.copy(tmp_path / "old", book)
    assert call("site", "budget", "--site", site.path) == 57
    assert "older copy" in capsys.readouterr().err


def test_an_asset_that_was_renamed_is_pointed_out(site: SiteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    text = (site.path / "site.yaml").read_text()
    renamed = text.replace("version: 1", "version: 2").replace("basel-records", "basel-records-2")
    (site.path / "site.yaml").write_text(renamed)
    assert call("site", "sign-policy", "--site", site.path) == 0
    assert "charged to the asset basel-records does not count for basel-records-2" in capsys.readouterr().out
    assert call("site", "budget", "--site", site.path) == 0
    assert "The asset basel-records has a ledger of its own" in capsys.readouterr().out


@pytest.mark.parametrize(("share", "full"), [(0.0, 0), (1e-9, 1), (0.5, 20), (0.999, 39), (1.0, 40)])
def test_the_bar(share: float, full: int) -> None:
    assert bar(share) == "█" * full + "░" * (40 - full)


def test_what_is_spent_is_rounded_up_and_what_is_left_down() -> None:
    assert (up(1.2301), up(0.0), up(1.23), up(9.999)) == ("1.24", "0", "1.23", "10")
    assert (down(1.769), down(0.0)) == ("1.76", "0.00")
