"""What a run leaves on disk is whole, the same for the same results, and comes back as it was."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fivefold.errors import RunError
from fivefold.protocol.results import Result, ResultTable
from fivefold.results.write import comparable, file_names, json_of, read_results, write_result
from tests.results.result_values import results

META = {"digest": "ab" * 32, "seed": 7, "run": {"started": "2026-11-24T15:00:00Z", "folder": "runs/a"}}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "lung"
    write_result(folder, results(), META)
    return folder


def test_results_come_back_as_they_were_written(run_folder: Path) -> None:
    assert read_results(run_folder) == results()
    assert list(read_results(run_folder)) == ["sex & survival", "cox", "stats"]


def test_every_file_is_there_and_nothing_is_left_over(run_folder: Path, tmp_path: Path) -> None:
    written = write_result(tmp_path / "again", results(), META)
    assert written[-1] == "result.json"
    assert {p.relative_to(tmp_path / "again").as_posix() for p in (tmp_path / "again").rglob("*") if p.is_file()} == set(
        written
    )
    assert "tables/sex-survival.curve.csv" in written
    assert {"plots/stats.3.svg", "plots/stats.3.png"} <= set(written)
    for path in written:
        assert (tmp_path / "again" / path).read_bytes() == (run_folder / path).read_bytes(), path


def test_two_runs_differ_by_the_key_run_alone(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(json_of(results(), META | {"run": {"started": "later", "folder": "elsewhere"}}))
    assert (tmp_path / "result.json").read_bytes() != (run_folder / "result.json").read_bytes()
    assert comparable(tmp_path) == comparable(run_folder)
    (tmp_path / "result.json").write_bytes(json_of(results(), META | {"seed": 8}))
    assert comparable(tmp_path) != comparable(run_folder)


def test_result_json_is_plain_json_with_sorted_keys(run_folder: Path) -> None:
    text = (run_folder / "result.json").read_text(encoding="utf-8")
    value = json.loads(text, parse_constant=pytest.fail)
    assert json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n" == text
    assert value["study"] == {"digest": "ab" * 32, "seed": 7}


def test_csv_keeps_every_digit_and_leaves_withheld_cells_empty(run_folder: Path) -> None:
    with (run_folder / "tables" / "cox.coefficients.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["coefficient"]) == 0.017012888
    assert rows[2]["high"] == "inf"
    assert rows[3] == {"term": "ecog = 4", "coefficient": "", "hazard_ratio": "", "low": "", "high": "", "p": ""}


def test_a_third_keeps_its_seventeen_digits(tmp_path: Path) -> None:
    table = ResultTable.of("t", ["x"], [(1 / 3,), (1e-300,), (0.1 + 0.2,)])
    result = Result("m", {"t": table}, {"f": 2 / 3}, ("A",))
    write_result(tmp_path, {"a": result}, {})
    assert read_results(tmp_path)["a"] == result
    assert (tmp_path / "tables" / "a.t.csv").read_text() == "x\n0.3333333333333333\n1e-300\n0.30000000000000004\n"


def test_names_become_files_of_their_own() -> None:
    assert file_names(dict.fromkeys(["a b", "a/b", "A-B", "../../etc", "", "Übung"])) == (
        "a-b",
        "a-b-2",
        "A-B-3",
        "etc",
        "result",
        "bung",
    )


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'{"format": "fivefold-result/1", "analyses": 3}'])
def test_a_folder_without_results_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(RunError) as found:
        read_results(tmp_path)
    assert found.value.hint


def test_a_table_that_was_tampered_with_is_no_result(run_folder: Path, tmp_path: Path) -> None:
    value = json.loads((run_folder / "result.json").read_bytes())
    value["analyses"][0]["tables"][0]["rows"][0].pop()
    (tmp_path / "result.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match="does not hold a result"):
        read_results(tmp_path)


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    text = """
import resource, sys
from pathlib import Path
from fivefold.errors import StorageFull
from fivefold.records.files import write_file
path = Path(sys.argv[1]) / "result.json"
write_file(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    write_file(path, b"x" * 1000)
except StorageFull as error:
    print(error.exit_code)
"""
    out = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert out.strip() == "54"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_result(tmp_path / "file", {}, {})
