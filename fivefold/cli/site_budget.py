"""`fivefold site budget`: what was spent of the data asset's privacy budget, by whom, and what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fivefold.cli.arguments import HERE, Where

if TYPE_CHECKING:
    from fivefold.governance.policy import Policy
    from fivefold.site.budget_book import Book


def budget(
    folder: Where = HERE,
    plot: Annotated[
        Path | None, typer.Option(help="Draw how ε grew, into this file (.svg or .png).", metavar="FILE", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the values as JSON.")] = False,
) -> None:
    """Show the privacy budget of the site's data asset: studies, answers, ε spent and left. For the site's own staff."""
    from fivefold.records.files import write_named
    from fivefold.site import budget_view as view
    from fivefold.site.budget import ledger_of
    from fivefold.site.budget_book import compare, last_witnessed, load, others
    from fivefold.site.folder import opened

    here = opened(folder)
    policy = here.policy()
    book = load(ledger_of(here.state, policy), policy.asset)
    compare(book, last_witnessed(here.state / "audit.jsonl", policy.asset))
    if plot is not None:
        kind = plot.suffix.lower().removeprefix(".")
        if kind not in ("svg", "png"):
            raise typer.BadParameter("name a file that ends in .svg or .png", param_hint="--plot")
        write_named(plot, view.drawn(policy, book, kind))
    found = view.values(policy, book) | {"other_assets": [b.asset for b in others(here.state, policy.asset)]}
    if json:
        import json as text

        typer.echo(text.dumps(found, indent=2, ensure_ascii=False))
        return
    _print(policy, book, found)
    if plot is not None:
        typer.echo(f"\ndrawn: {plot}")


def _print(policy: Policy, book: Book, found: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    from fivefold.privacy.dp.words import landmarks, meaning, up
    from fivefold.site.budget_view import bar, down

    out = Console()

    def say(text: str) -> None:
        out.print(text, highlight=False, soft_wrap=True)

    cap, share = found["cap"], found["share"]
    say(f"Privacy budget of the asset [bold]{escape(policy.asset)}[/] at {escape(policy.site)}, at δ = {found['delta']:g}")
    if cap is None:
        say(
            f"spent ε = {up(found['spent'])}; site.yaml declares no cap: write `budget: {{epsilon: 3, delta: 1e-6}}` there, "
            "and sign it"
        )
    else:
        say(f"{bar(share)}  {100 * share:.0f} % used")
        say(f"spent ε = {up(found['spent'])} of {cap['epsilon']:g}; left ε = {down(found['left'])}")
    if found["studies"]:
        grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        grid.add_column("study", overflow="fold")
        for heading in ("noisy\nanswers", "ε alone", "share of\nbudget", "exact\nsums"):
            grid.add_column(heading, justify="right", no_wrap=True)
        grid.add_column("first – last", no_wrap=True)
        for s in found["studies"]:
            days = dict.fromkeys((s["first"][:10], s["last"][:10]))
            part = "" if s["share"] is None else f"{100 * s['share']:.1f} %"
            name = escape(s["title"] or s["study"][:16] + "…")
            exact = "yes" if s["exact"] else "no"
            grid.add_row(name, str(s["answers"]), up(s["epsilon"]), part, exact, " – ".join(days))
        out.print(grid)
    else:
        say("nothing was charged yet\n")
    if found["exact"]:
        say("Exact sums have left this asset: no ε describes those; the figures count the noisy answers alone.")
    for other in found["other_assets"]:
        say(f"The asset {escape(other)} has a ledger of its own at this site, which does not count here.")
    say("What this means to somebody who sees all noisy answers, and guesses whether one person is among the data:")
    if found["spent"]:
        say(f"  so far, {meaning(found['spent'])}")
    for line in landmarks():
        say(f"  {line}")
