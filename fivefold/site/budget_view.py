"""The budget of an asset for people: a table's values, a bar, and a figure of how ε grew.

A study's ε does not add up with another's; its share of the budget does. The share is its divergence at the order at which the
cap is counted, over what the cap allows there (`site/budget.py: filter_order`).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fivefold.governance.policy import Policy
from fivefold.privacy.dp.events import allowance, epsilon_of
from fivefold.privacy.dp.words import up
from fivefold.site.budget import by_study, curve_of, filter_order, spent
from fivefold.site.budget_book import Book, Entry

BAR = 40


def values(policy: Policy, book: Book) -> dict[str, Any]:
    """Plain values, as `--json` prints them. `left` is the cap's ε less what was spent; it and the shares are None without a
    cap."""
    epsilon, delta = spent(policy, book)
    cap = policy.budget
    return {
        "asset": policy.asset,
        "cap": None if cap is None else {"epsilon": cap.epsilon, "delta": cap.delta},
        "delta": delta,
        "spent": epsilon,
        "left": None if cap is None else max(0.0, cap.epsilon - epsilon),
        "share": _share(policy, book.entries),
        "exact": any(e.mechanism == "exact" for entry in book.entries for e in entry.events),
        "charges": len(book.entries),
        "head": book.head,
        "studies": [
            {
                "study": s.study,
                "title": s.title,
                "answers": s.answers,
                "epsilon": s.epsilon,
                "share": _share(policy, [e for e in book.entries if e.study == s.study]),
                "exact": s.exact,
                "first": s.first,
                "last": s.last,
            }
            for s in by_study(book, delta)
        ],
    }


def bar(share: float, width: int = BAR) -> str:
    """`██████░░░░` for a share of the budget; a share above nothing shows, and only a whole budget fills it."""
    full = min(width - (share < 1), max(math.floor(share * width), int(share > 0)))
    return "█" * full + "░" * (width - full)


def down(epsilon: float) -> str:
    """Two decimals, rounded down: what is left is never told larger than it is."""
    return f"{math.floor(epsilon * 100) / 100:.2f}"


def growth(book: Book, delta: float) -> list[tuple[Entry, float]]:
    """Each noisy charge in order, with the ε that all up to it come to at δ."""
    noisy = [e for e in book.entries if all(v.mechanism != "exact" for v in e.events)]
    total, out = np.zeros_like(curve_of(())), []
    for entry in noisy:
        total = total + curve_of((entry,))
        out.append((entry, epsilon_of(total, delta)))
    return out


def drawn(policy: Policy, book: Book, kind: str) -> bytes:
    """ε after each answer, a colour for each study, the cap as a line: a figure as `svg` or `png`. The same ledger and policy
    give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    from fivefold.results.drawings import COLOURS, GREY, INK
    from fivefold.results.plots import STYLE

    _, delta = spent(policy, book)
    points, cap = growth(book, delta), policy.budget
    with rc_context(STYLE):
        canvas = Canvas(figsize=(7.2, 3.8))
        FigureCanvasAgg(canvas)
        axes = canvas.subplots()
        studies = list(dict.fromkeys(entry.study for entry, _ in points))
        for number, study in enumerate(studies):
            colour = COLOURS[number % len(COLOURS)]
            title = next((e.title for e, _ in reversed(points) if e.study == study and e.title), study[:12])
            label = title if len(title) <= 48 else f"{title[:47]}…"
            at = [i for i, (entry, _) in enumerate(points) if entry.study == study]
            axes.bar([i + 0.5 for i in at], [points[i][1] for i in at], width=1.0, color=colour, linewidth=0, label=label)
        axes.set_xlim(0, max(1, len(points)))
        if cap is not None:
            axes.axhline(cap.epsilon, color=INK, linewidth=1.2)
            axes.annotate(
                f"cap ε = {cap.epsilon:g}",
                (1.0, cap.epsilon),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=INK,
            )
        top = max([e for _, e in points] + ([cap.epsilon] if cap is not None else []) + [1e-9])
        axes.set_ylim(0, 1.15 * top)
        axes.set_xlabel("noisy answers, in order")
        axes.set_ylabel(f"ε spent, at δ = {delta:g}")
        axes.set_title(f"Privacy budget of {policy.asset}", loc="left", color=INK, pad=22)
        axes.text(0, 1.04, _subtitle(policy, book, points), transform=axes.transAxes, color=GREY, fontsize=9)
        if studies:
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), fontsize=8, ncols=2, handlelength=1.0, borderaxespad=0)
        stream = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        canvas.savefig(stream, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.2, facecolor="white")
    return stream.getvalue()


def _subtitle(policy: Policy, book: Book, points: Sequence[tuple[Entry, float]]) -> str:
    epsilon, _ = spent(policy, book)
    studies = len({entry.study for entry, _ in points})
    share = _share(policy, book.entries)
    used = "" if share is None else f", {100 * share:.0f} % of the budget used"
    return f"{len(points)} noisy answers of {studies} {'study' if studies == 1 else 'studies'}, ε = {up(epsilon)}{used}"


def _share(policy: Policy, entries: Sequence[Entry]) -> float | None:
    cap = policy.budget
    if cap is None:
        return None
    at = filter_order(cap.epsilon, cap.delta)
    room = float(allowance(cap.epsilon, cap.delta)[at])
    return float(curve_of(entries)[at]) / room if room > 0 else 1.0
