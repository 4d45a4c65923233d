"""Figures say what their table says, name what was withheld, and are the same bytes every time."""

from __future__ import annotations

import io
import sys
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.results import plots
from tests.results.result_values import results

FIGURES = [(name, i) for name, result in results().items() for i in range(len(result.figures))]


def drawn(result: Result, figure: Figure) -> Any:
    """The axes of a figure, so that what is drawn can be read off."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with rc_context(plots.STYLE):
        canvas = Canvas()
        FigureCanvasAgg(canvas)
        axes = canvas.subplots()
        plots.DRAWINGS[figure.kind](axes, result.tables[figure.table], figure)
        plots._frame(canvas, figure, result)
        canvas.draw_without_rendering()
    return axes


def words(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("name", "number"), FIGURES)
def test_each_figure_is_a_picture_and_the_same_one_every_time(name: str, number: int) -> None:
    from matplotlib.image import imread

    result = results()[name]
    first, second = (plots.draw(result.figures[number], result) for _ in range(2))
    assert first == second
    assert set(first) == {"svg", "png"}
    picture = imread(io.BytesIO(first["png"]))
    assert picture.shape[1] > 400
    assert (picture[:2, :, :3] == 1).all()
    assert (picture[:, :2, :3] == 1).all()
    assert picture[..., :3].min() < 0.2
    assert ElementTree.fromstring(first["svg"]).tag.endswith("svg")
    assert b"<dc:date>" not in first["svg"]


def test_a_forest_writes_each_interval_and_names_what_is_withheld() -> None:
    result = results()["cox"]
    axes = drawn(result, result.figures[0])
    assert {"1.017  (0.999 – 1.036)", "0.60  (0.43 – 0.83)", "14.88  (1.90 – ∞)", "withheld"} <= set(words(axes))
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["age", "sex = female", "ecog = 3", "ecog = 4"]
    assert 1.0 in axes.get_xticks()
    low, high = axes.get_xlim()
    assert low < 0.43
    assert 14.88 < high < 1e4


def test_a_very_wide_interval_does_not_hide_the_others() -> None:
    table = ResultTable.of("t", ["x", "e", "l", "h"], [("a", 1.1, 0.9, 1.3), ("b", 2.0, 1e-40, 1e40)])
    figure = Figure("forest", "t", "t", {"label": "x", "estimate": "e", "low": "l", "high": "h"}, log_x=True)
    low, high = drawn(Result("m", {"t": table}, {}, ("A",)), figure).get_xlim()
    assert low > 1e-4
    assert high < 1e4


def test_survival_curves_are_steps_of_the_table_from_one() -> None:
    result = results()["sex & survival"]
    axes = drawn(result, result.figures[0])
    male, female = axes.get_lines()
    assert male.get_drawstyle() == female.get_drawstyle() == "steps-post"
    table = result.tables["curve"]
    rows = [row for row in table.rows if row[0] == "male"]
    assert np.array_equal(male.get_xdata(), [row[1] for row in rows])
    assert np.array_equal(male.get_ydata(), [row[2] for row in rows])
    assert male.get_ydata()[0] == 1.0
    assert len(axes.collections) == 2
    assert male.get_linestyle() != female.get_linestyle()


def test_the_numbers_at_risk_are_those_of_the_data() -> None:
    from lifelines.datasets import load_lung

    result = results()["sex & survival"]
    axes = drawn(result, result.figures[0])
    said = words(axes)
    at = said.index("male") + 1
    ticks = [t for t in axes.get_xticks() if t >= 0]
    lung = load_lung()
    males = lung[lung["sex"] == 1]["time"]
    assert said[at : at + len(ticks)] == [str(int((males >= t).sum())) for t in ticks]


def test_a_withheld_number_at_risk_is_a_dash_and_a_withheld_step_a_gap() -> None:
    table = ResultTable.of(
        "t", ["g", "time", "s", "l", "h", "at_risk"], [("a", 10, 0.9, 0.8, 1.0, 20), ("a", 20, None, None, None, None)]
    )
    roles = {"group": "g", "time": "time", "estimate": "s", "low": "l", "high": "h"}
    axes = drawn(Result("m", {"t": table}, {}, ("A",)), Figure("survival", "t", "t", roles))
    assert {"20", "–"} <= set(words(axes))
    (line,) = axes.get_lines()
    assert line.get_xdata()[0] == 0.0
    assert np.isnan(line.get_ydata()[-1])


@pytest.mark.parametrize(
    ("rows", "said", "ticks"),
    [
        (((0.1, 0.2), (0.5, None), (0.9, 0.8)), "1 of 3 points withheld", True),
        (((0.1, None), (0.5, None)), "every point is withheld", False),
    ],
)
def test_a_curve_says_how_many_points_are_withheld(rows: Any, said: str, ticks: bool) -> None:
    table = ResultTable.of("Calibration", ("predicted", "observed"), rows)
    figure = Figure("curve", "calibration", "Calibration", {"x": "predicted", "y": "observed"})
    axes = drawn(Result("fedavg", {"calibration": table}, {"persons": 60}, ("a", "b", "c")), figure)
    assert words(axes) == [said]
    assert bool(len(axes.get_yticks())) is ticks


def test_bars_and_heat_name_a_withheld_cell() -> None:
    result = results()["stats"]
    for figure in result.figures[:2]:
        said = words(drawn(result, figure))
        assert said.count("withheld") == 1
        assert {"36", "71", "27"} <= set(said)


def test_bars_below_zero_and_a_curve_with_a_band() -> None:
    table = ResultTable.of("t", ["x", "y", "l", "h"], [(1, -2.0, -3.0, -1.0), (2, 4.0, 3.0, 5.0)])
    result = Result("m", {"t": table}, {}, ("A",))
    bars = drawn(result, Figure("bars", "t", "t", {"label": "x", "value": "y"}, y_label="Persons"))
    assert bars.get_xlabel() == "Persons"
    assert bars.get_xlim()[0] < -2 < 4 < bars.get_xlim()[1]
    assert "−2" in words(bars)
    curve = drawn(result, Figure("curve", "t", "t", {"x": "x", "y": "y", "low": "l", "high": "h"}, log_x=True))
    assert len(curve.collections) == 1
    assert curve.get_xscale() == "log"


def test_every_figure_states_on_how_many_it_rests() -> None:
    result = results()["cox"]
    canvas = drawn(result, result.figures[0]).get_figure()
    said = " ".join(text.get_text() for text in canvas.texts).replace("\n", " ")
    assert "persons 213 · events 151 · missing ecog 1 · sites 3 · dropped South (round 3)" in said
    assert "Hazard ratios of age, sex & ECOG" in said


def test_no_text_of_a_figure_lies_over_another() -> None:
    for name, number in FIGURES:
        result = results()[name]
        axes = drawn(result, result.figures[number])
        canvas = axes.get_figure()
        ticks = [
            tick.label1
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        texts = [*axes.texts, *canvas.texts, *ticks]
        boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text() and t.get_visible()]
        for i, (one, box) in enumerate(boxes):
            for other, second in boxes[:i]:
                assert not box.padded(-1).overlaps(second.padded(-1)), f"{name}: {one!r} over {other!r}"


def test_a_label_with_dollars_and_an_empty_table_are_drawn() -> None:
    table = ResultTable.of("t", ["x", "y"], [("cost in $ or $$_{", 2.0)])
    result = Result("m", {"t": table, "none": ResultTable.of("n", ["x", "y"], [])}, {}, ("A",))
    assert plots.draw(Figure("bars", "t", "a $ b $", {"label": "x", "value": "y"}), result)["png"]
    for kind, roles in [("bars", ("label", "value")), ("curve", ("x", "y"))]:
        assert plots.draw(Figure(kind, "none", "n", dict(zip(roles, ("x", "y"), strict=True))), result)["png"]


def test_no_window_system_is_touched() -> None:
    result = results()["stats"]
    plots.draw(result.figures[0], result)
    assert "matplotlib.pyplot" not in sys.modules or "tkinter" not in sys.modules
