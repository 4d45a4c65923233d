"""Figures as SVG and PNG, drawn from a result's tables alone.

One quiet style: the colours of Okabe and Ito (2008), told apart by colour-blind readers and by line style in print; the title
says what is shown, the line below it on how many persons, events and sites it rests. The same table gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.records.counts import counts_line
from fivefold.results.drawings import GREY, INK, bars, curve, forest, heat, survival

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "path.simplify": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "fivefold",
    "savefig.dpi": 160,
    "text.parse_math": False,
}


DRAWINGS: dict[str, Callable[[Any, ResultTable, Figure], None]] = {
    "forest": forest,
    "survival": survival,
    "bars": bars,
    "curve": curve,
    "heat": heat,
}


def draw(figure: Figure, result: Result) -> dict[str, bytes]:
    """The figure as `{"svg": …, "png": …}`. `figure.mapping` names the column of each role (`{"label": "term", …}`).

    Rows whose values were suppressed are named as withheld and never guessed.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    table = result.tables[figure.table]
    out: dict[str, bytes] = {}
    with rc_context(STYLE):
        canvas = Canvas()
        FigureCanvasAgg(canvas)
        DRAWINGS[figure.kind](canvas.subplots(), table, figure)
        _frame(canvas, figure, result)
        for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            stream = io.BytesIO()
            canvas.savefig(stream, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.2, facecolor="white")
            out[kind] = stream.getvalue()
    return out


def _frame(canvas: Any, figure: Figure, result: Result) -> None:
    """Title and counts above the axes, from the left edge of what is drawn."""
    from textwrap import fill

    axes = canvas.axes[0]
    canvas.draw_without_rendering()
    box = axes.get_tightbbox().transformed(canvas.transFigure.inverted())
    inch = 1 / canvas.get_figheight()
    wide = max(canvas.get_figwidth(), 5.0)
    title = fill(figure.title, round(7.6 * wide))
    counts = fill(counts_line(result.facts, result.sites, result.dropped), round(13 * wide))
    at, above = box.y1 + 0.12 * inch, 0.06 + 0.145 * (counts.count("\n") + 1)
    canvas.text(box.x0, at, counts, fontsize=8.5, color=GREY, ha="left", va="bottom")
    canvas.text(box.x0, at + above * inch, title, fontsize=13, fontweight="bold", color=INK, ha="left", va="bottom")
