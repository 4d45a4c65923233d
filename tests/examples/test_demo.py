"""`make demo` from end to end, for both examples: the federated answers beside the pooled ones, and what the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from examples import compare, prepare
from examples.breast import data as breast
from examples.lung import data as lung
from fivefold.cli.main import run
from fivefold.results.write import read_results

README = (Path(prepare.__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["lung", "breast"])
def consortium(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A prepared consortium that has run its study once."""
    out = tmp_path_factory.mktemp("demo") / request.param
    assert prepare.main([request.param, str(out)]) == 0
    assert run(["run", str(out / "study.yaml"), "--quiet"]) == 0
    return request.param, out


def folder_of(out: Path) -> Path:
    found = compare.newest(out)
    assert found is not None
    return found


def test_models_equal_the_pooled_fits(consortium: tuple[str, Path]) -> None:
    name, out = consortium
    results = read_results(folder_of(out))
    tolerance = {"lung": 1e-6, "breast": 1e-8}[name]
    models = {n: compare.compared(r, stratified="by-site" in n) for n, r in results.items() if r.method in ("cox", "glm")}
    assert set(models) == {"lung": {"cox", "cox-by-site"}, "breast": {"malignancy"}}[name]
    for lines in models.values():
        assert len(lines) >= 3
        assert max(line.difference for line in lines) < tolerance


def test_the_description_equals_pandas(consortium: tuple[str, Path]) -> None:
    name, out = consortium
    frame, _ = {"lung": lung, "breast": breast}[name].pooled()
    table = read_results(folder_of(out))["description"].tables["numbers"]
    variables = [str(v) for v in table.column("variable")]
    for column, expected in (
        ("n", frame[variables].count()),
        ("mean", frame[variables].mean()),
        ("variance", frame[variables].var()),
    ):
        got = pd.Series(table.column(column), index=variables, dtype=float)
        for variable in variables:
            assert got[variable] == pytest.approx(expected[variable], rel=1e-12)


def test_it_prints_the_comparison_and_names_the_run_folder(
    consortium: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name, out = consortium
    assert compare.main([str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"The run is in {folder_of(out)}" in printed
    if name == "lung":
        block = next(b for b in re.findall(r"```text\n(.*?)```", README, re.DOTALL) if b.startswith("cox:"))
        pattern = "".join(r"[^\n]*".join(re.escape(p) for p in line.split("...")) + "\n" for line in block.splitlines())
        assert re.fullmatch(pattern, printed), printed


def test_the_run_folder_holds_what_the_readme_says(consortium: tuple[str, Path]) -> None:
    _, out = consortium
    folder = folder_of(out)
    for file in ("result.json", "audit.jsonl", "ro-crate-metadata.json", "ro-crate-preview.html"):
        assert (folder / file).stat().st_size > 0
    assert list((folder / "plots").glob("*.svg"))
    assert list((folder / "plots").glob("*.png"))
    assert list((folder / "tables").glob("*.csv"))


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(tmp_path)]) == 2
    assert "holds no run that has ended" in capsys.readouterr().err
