"""The promise stands with every result, table and figure of a noisy study, and nowhere in an exact one."""

from __future__ import annotations

import io

from rich.console import Console

from fivefold.privacy.dp.accounting import spent
from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.records.counts import counts_line
from fivefold.results.guarantee import promise_of, stated
from fivefold.results.plots import draw
from fivefold.results.show import show_results
from fivefold.results.tables import plain_of, result_of
from fivefold.study.definition import DifferentialPrivacy

PRIVATE = DifferentialPrivacy("person", 3.0, 1e-6, 4.0)
TABLE = ResultTable.of("Persons", ("label", "value"), [("a", 3), ("b", 4)])
RESULT = Result(
    "statistics",
    {"t": TABLE},
    {"persons": 7},
    ("x", "y", "z"),
    figures=(Figure("bars", "t", "F", {"label": "label", "value": "value"}),),
)


def test_every_table_and_result_states_it() -> None:
    (told,) = stated({"a": RESULT}, PRIVATE, 9).values()
    epsilon = spent(9, 4.0, 1e-6)
    line = promise_of(PRIVATE, 9)
    assert epsilon <= float(line.split()[2]) <= epsilon * 1.01
    assert told.facts["privacy"] == line
    assert line in counts_line(told.facts, told.sites, told.dropped)
    assert told.tables["t"].notes[-1].startswith(line)
    assert len(told.notes) == 3
    assert result_of(plain_of(told)) == told


def test_the_terminal_shows_it_once_and_figures_carry_it() -> None:
    out, told = io.StringIO(), stated({"a": RESULT}, PRIVATE, 9)
    show_results(told, Console(file=out, width=300))
    assert out.getvalue().count("per person (all rows of one person at a site, there or not)") == 3  # counts, table, note
    assert "privacy ε" not in out.getvalue()
    with_, without = draw(RESULT.figures[0], told["a"])["svg"], draw(RESULT.figures[0], RESULT)["svg"]
    assert len(with_) > len(without)


def test_exact_results_stay_as_they_are() -> None:
    assert stated({"a": RESULT}, None, 9) == {"a": RESULT}
    assert promise_of(None, 9) == ""


def test_what_is_no_result_stays_as_it_is() -> None:
    assert stated({"a": "ended"}, PRIVATE, 1) == {"a": "ended"}
