"""What the terminal shows: numbers under each other, withheld cells named, counts beside every result."""

from __future__ import annotations

import io

from rich.console import Console

from fivefold.protocol.results import ResultTable
from fivefold.records.counts import counts_line, whole
from fivefold.results.show import aligned, number, p_value, show_results, terminal_table
from tests.results.result_values import results


def shown(width: int = 100, **more: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    show_results(results(), console, **more)
    return console.file.getvalue()


def test_each_analysis_states_its_counts_tables_notes_and_facts() -> None:
    text = shown()
    for words in (
        "persons 213 · events 151 · missing ecog 1 · sites 3 · dropped South (round 3)",
        "persons 228 · events 165 · sites 3 · none dropped",
        "Cox model",
        "Efron's approximation for ties.",
        "log likelihood -729.23",
        "Stopped early.",
        "time (d)",
        "· withheld (fewer persons than the study's minimum) or undefined.",
    ):
        assert words in text


def test_the_points_of_a_column_stand_under_each_other() -> None:
    lines = [line for line in shown().splitlines() if line.startswith(("age ", "sex = female"))]
    assert len({line.index(".", 20) for line in lines}) == 1
    assert lines[0].split()[-1] == "0.065"
    assert lines[1].split()[-1] == "0.002"


def test_long_tables_are_cut_and_say_so() -> None:
    text = shown(max_rows=10)
    assert "10 of 208 rows are shown; the CSV file has them all." in text
    assert len(text.splitlines()) < 90


def test_square_brackets_in_labels_are_text() -> None:
    table = ResultTable.of("t [bold]", ["x [red]", "y"], [("[link=http://x]a[/link]", 1)], units={"y": "[kg]"})
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal_table(table))
    text = console.file.getvalue()
    assert "[link=http://x]a[/link]" in text
    assert "x [red]" in text
    assert "y ([kg])" in text


def test_cells_keep_three_digits_of_the_smallest_value() -> None:
    assert aligned("mean", [654.889, 0.0628, None]) == ["654.8890", "0.0628", "·"]
    assert aligned("n", [1200, 3]) == ["1\u202f200", "3"]
    assert aligned("n", [12.0, 3.0]) == ["12", "3"]
    assert aligned("x", [1e-9, 2.5]) == ["1e-09", "2.5"]
    assert aligned("p", [0.0004, 0.5, None]) == ["<0.001", "0.500", "·"]
    assert aligned("label", ["a", None]) == ["a", "·"]


def test_single_values() -> None:
    assert [number(v) for v in (None, 3, 2.5, 1e-7, 12.0, True, "x", 1234567)] == [
        "·",
        "3",
        "2.5",
        "1e-07",
        "12",
        "True",
        "x",
        "1\u202f234\u202f567",
    ]
    assert p_value("n/a") == "n/a"
    assert whole(1234.5) == "1234.5"


def test_the_counts_line_names_what_is_missing_and_rows_only_where_they_differ() -> None:
    facts = {"persons": 5000, "rows": 5200, "events": None, **{f"missing_v{i}": i for i in range(7)}}
    assert counts_line(facts, ("A", "B"), ()) == (
        "persons 5\u202f000 · rows 5\u202f200 · missing v1 1, v2 2, v3 3, v4 4, 2 more · sites 2 · none dropped"
    )
    assert counts_line({"persons": 3, "rows": 3, "missing_a": 0}, ("A",), ("B (round 1)",), named=True) == (
        "persons 3 · none missing · sites A · dropped B (round 1)"
    )
