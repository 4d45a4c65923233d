"""The kinds of figure: each draws one table on given axes, and guesses nothing that was withheld."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fivefold.protocol.results import Figure, ResultTable, Scalar
from fivefold.records.counts import whole
from fivefold.results.scales import drawable, interval, known, limits, log_ticks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (1, 3)), "-")
INK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#e6e6e6"


def forest(axes: Axes, table: ResultTable, figure: Figure) -> None:
    """Estimates with intervals, one line each, the numbers written out at the right; the line of no effect at 1 or 0."""
    labels = [str(v) for v in _column(table, figure, "label")]
    estimate, low, high = (_numbers(table, figure, role) for role in ("estimate", "low", "high"))
    n = len(labels)
    _size(axes, 8.2, 1.3 + 0.36 * n)
    if figure.log_x:
        axes.set_xscale("log")
    null = 1.0 if figure.log_x else 0.0
    core = [v for v in (*estimate, null) if drawable(v, figure.log_x)]
    left, right = limits(core, [v for v in (*low, *high) if drawable(v, figure.log_x)], figure.log_x)
    axes.set_xlim(left, right)
    for i in range(n):
        y = n - 1 - i
        if i % 2 == 0:
            axes.axhspan(y - 0.5, y + 0.5, color="#f5f7f9", zorder=0, linewidth=0)
        text = "withheld"
        if drawable(estimate[i], figure.log_x):
            lower, upper = max(known(low[i], left), left), min(known(high[i], right), right)
            axes.plot([lower, upper], [y, y], color=COLOURS[0], linewidth=1.8, solid_capstyle="butt", zorder=2)
            axes.plot([estimate[i]], [y], marker="s", markersize=6, color=COLOURS[0], markeredgecolor="white", zorder=3)
            for edge, mark in ((lower, "<"), (upper, ">")):
                if edge in (left, right):
                    axes.plot([edge], [y], marker=mark, markersize=5, color=COLOURS[0], zorder=3, clip_on=False)
            text = interval(estimate[i], low[i], high[i])
        axes.text(
            1.02,
            y,
            text,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=INK if text != "withheld" else GREY,
        )
    axes.axvline(null, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_ylim(-0.5, n - 0.5)
    axes.set_yticks(range(n - 1, -1, -1), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if figure.log_x:
        log_ticks(axes, left, right)
    axes.text(1.02, n - 0.35, "estimate (interval)", transform=axes.get_yaxis_transform(), va="bottom", fontsize=8, color=GREY)
    axes.set_xlabel(figure.x_label + (" (log scale)" if figure.log_x and figure.x_label else ""))


def survival(axes: Axes, table: ResultTable, figure: Figure) -> None:
    """Survival curves as steps with confidence bands, and the numbers at risk below where the table has them."""
    _size(axes, 8.2, 5.0)
    time, estimate, low, high = (_numbers(table, figure, role) for role in ("time", "estimate", "low", "high"))
    groups = _groups(table, figure, "group", len(time))
    at_risk = figure.mapping.get("at_risk", "at_risk")
    risk = table.numbers(at_risk) if at_risk in table.columns else ()
    latest = max((t for t in time if not math.isnan(t)), default=1.0)
    for k, (name, rows) in enumerate(groups.items()):
        rows = _in_order(rows, time)
        colour, line = COLOURS[k % len(COLOURS)], LINES[k % len(LINES)]
        start = not rows or time[rows[0]] > 0
        x = [0.0] * start + [time[i] for i in rows]
        curve = [1.0] * start + [estimate[i] for i in rows]
        below = [1.0] * start + [low[i] for i in rows]
        above = [1.0] * start + [high[i] for i in rows]
        axes.fill_between(x, below, above, step="post", color=colour, alpha=0.16, linewidth=0)
        axes.plot(x, curve, drawstyle="steps-post", color=colour, linestyle=line, linewidth=1.8, label=name)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, latest)
    axes.yaxis.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.50", "0.75", "1"])
    axes.set_xlabel(figure.x_label or "time")
    axes.set_ylabel(figure.y_label or "probability of survival")
    if len(groups) > 1:
        axes.legend(loc="upper right", handlelength=2.6)
    if risk:
        _risk_table(axes, time, risk, groups, latest)


def bars(axes: Axes, table: ResultTable, figure: Figure) -> None:
    """Horizontal bars, the first row on top, each with its value; side by side where there is a `series`."""
    labels = list(dict.fromkeys(str(v) for v in _column(table, figure, "label")))
    value = _numbers(table, figure, "value")
    series = _groups(table, figure, "series", len(value))
    at = [labels.index(str(v)) for v in _column(table, figure, "label")]
    _size(axes, 8.2, 1.3 + len(labels) * max(0.34, 0.22 * len(series) + 0.1))
    thick = 0.76 / len(series)
    widest = max((abs(v) for v in value if not math.isnan(v)), default=1.0) or 1.0
    for k, (name, rows) in enumerate(series.items()):
        for i in rows:
            y = len(labels) - 1 - at[i] + 0.38 - thick * (k + 0.5)
            axes.barh(
                y, value[i] or 0.0, height=thick * 0.9, color=COLOURS[k % len(COLOURS)], label=name if i == rows[0] else None
            )
            text = "withheld" if math.isnan(value[i]) else short(value[i])
            left = value[i] < 0
            axes.annotate(
                text,
                (known(value[i], 0.0), y),
                (-4 if left else 4, 0),
                textcoords="offset points",
                va="center",
                ha="right" if left else "left",
                fontsize=8.5,
                color=GREY if math.isnan(value[i]) else INK,
            )
    negative = any(v < 0 for v in value)
    axes.set_xlim(-widest * 1.15 if negative else 0.0, widest * 1.15)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(labels) - 1, -1, -1), labels)
    axes.set_ylim(-0.55, len(labels) - 0.45)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(figure.y_label)  # the bars lie: their values run along x
    axes.set_ylabel(figure.x_label)
    if len(series) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def curve(axes: Axes, table: ResultTable, figure: Figure) -> None:
    """Lines over x, one a series, with bands where the table has `low` and `high`."""
    _size(axes, 8.2, 4.6)
    x, y = _numbers(table, figure, "x"), _numbers(table, figure, "y")
    band = {"low", "high"} <= set(figure.mapping)
    low = _numbers(table, figure, "low") if band else []
    high = _numbers(table, figure, "high") if band else []
    series = _groups(table, figure, "series", len(x))
    for k, (name, rows) in enumerate(series.items()):
        rows = _in_order(rows, x)
        colour = COLOURS[k % len(COLOURS)]
        at = [x[i] for i in rows]
        marker = "o" if len(rows) <= 30 else None
        axes.plot(
            at,
            [y[i] for i in rows],
            color=colour,
            linestyle=LINES[k % len(LINES)],
            linewidth=1.8,
            label=name,
            marker=marker,
            markersize=4,
        )
        if band:
            axes.fill_between(at, [low[i] for i in rows], [high[i] for i in rows], color=colour, alpha=0.16, linewidth=0)
    if figure.log_x:
        axes.set_xscale("log")
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    if len(series) > 1:
        axes.legend(loc="best", handlelength=2.6)
    if hidden := sum(math.isnan(v) for v in y):
        said = f"{hidden} of {len(y)} points withheld" if hidden < len(y) else "every point is withheld"
        place = (0.99, 0.02, "right", "bottom") if hidden < len(y) else (0.5, 0.5, "center", "center")
        axes.text(*place[:2], said, transform=axes.transAxes, ha=place[2], va=place[3], fontsize=8.5, color=GREY)
        if hidden == len(y):  # an empty axis would invent a scale
            axes.set_xticks([])
            axes.set_yticks([])


def heat(axes: Axes, table: ResultTable, figure: Figure) -> None:
    """A grid of cells, each with its number; a withheld cell is hatched. The scale is cividis, even to colour-blind eyes."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    rows = list(dict.fromkeys(str(v) for v in _column(table, figure, "row")))
    columns = list(dict.fromkeys(str(v) for v in _column(table, figure, "column")))
    value = _numbers(table, figure, "value")
    _size(axes, 2.2 + 0.95 * len(columns), 1.4 + 0.5 * len(rows))
    present = [v for v in value if not math.isnan(v)]
    scale = Normalize(min(present, default=0.0), max(present, default=1.0))
    at = zip(_column(table, figure, "row"), _column(table, figure, "column"), value, strict=True)
    for row, column, v in at:
        x, y = columns.index(str(column)), len(rows) - 1 - rows.index(str(row))
        if math.isnan(v):
            cell, ink, text = (
                Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, edgecolor="#cfcfcf", hatch="///"),
                GREY,
                "withheld",
            )
        else:
            red, green, blue, _ = shade = colormaps["cividis"](0.08 + 0.87 * float(scale(v)))
            ink, text = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else INK, short(v)
            cell = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=shade)
        axes.add_patch(cell)
        back = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if math.isnan(v) else None
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color=ink, bbox=back)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows) - 1, -1, -1), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)


def _risk_table(
    axes: Axes,
    time: Sequence[float],
    risk: Sequence[float],
    groups: dict[str, list[int]],
    latest: float,
) -> None:
    ticks = [t for t in axes.get_xticks() if 0 <= t <= latest]
    axes.set_xticks(ticks)
    below = axes.get_xaxis_transform()
    axes.annotate(
        "at risk",
        (0, 0),
        (-24, -46),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=GREY,
    )
    for k, (name, rows) in enumerate(groups.items()):
        down = -60 - 15 * k
        colour = COLOURS[k % len(COLOURS)]
        axes.annotate(
            name,
            (0, 0),
            (-24, down),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=colour,
        )
        steps = [(time[i], risk[i]) for i in _in_order(rows, time)]
        for tick in ticks:
            at = next((r for t, r in steps if t >= tick - 1e-9), math.nan)
            text = "–" if math.isnan(at) else whole(at)
            axes.annotate(
                text, (tick, 0), (0, down), xycoords=below, textcoords="offset points", ha="center", fontsize=9, color=INK
            )


def _column(table: ResultTable, figure: Figure, role: str) -> tuple[Scalar, ...]:
    return table.column(figure.mapping[role])


def _numbers(table: ResultTable, figure: Figure, role: str) -> tuple[float, ...]:
    return table.numbers(figure.mapping[role])


def _groups(table: ResultTable, figure: Figure, role: str, rows: int) -> dict[str, list[int]]:
    if role not in figure.mapping:
        return {"": list(range(rows))}
    out: dict[str, list[int]] = {}
    for i, value in enumerate(_column(table, figure, role)):
        out.setdefault(str(value), []).append(i)
    return out


def _size(axes: Axes, width: float, height: float) -> None:
    canvas: Any = axes.get_figure()
    canvas.set_size_inches(width, height)


def _in_order(rows: list[int], by: Sequence[float]) -> list[int]:
    return sorted((i for i in rows if not math.isnan(by[i])), key=lambda i: by[i])
