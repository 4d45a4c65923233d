"""`fivefold outputs`: the airlock. The lead asks, output checkers look and decide, and only then files are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fivefold.governance.output_checks import Proposal
    from fivefold.governance.output_forms import Form
    from fivefold.governance.safe_outputs import Choice, Request, Standing
    from fivefold.protocol.results import Scalar

app = typer.Typer(help="Ask for outputs, check them, release them.", no_args_is_help=True, add_completion=False)

RunFolder = Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN", show_default=False)]
Number = Annotated[int, typer.Argument(help="The request's number, as `list` shows it.", metavar="N", show_default=False)]
KeyFile = Annotated[Path, typer.Option("--key", help="Your own private key.", metavar="FILE", show_default=False)]
Beside = Annotated[
    list[Path] | None, typer.Option(help="A folder of an earlier release elsewhere, to be compared with.", metavar="DIR")
]
Sites = Annotated[
    Path | None,
    typer.Option("--sites", help="Where the site folders are, to ask each for objections; beside the study by default."),
]
Coordinator = Annotated[
    Path | None,
    typer.Option(help="The coordinator's folder, to reach sites on other machines over its SuperLink.", metavar="DIR"),
]


class FormName(StrEnum):
    as_is = "as_is"
    suppressed = "suppressed"
    rounded = "rounded"


class ClassName(StrEnum):
    table = "table"
    survival = "survival"
    regression = "regression"
    model = "model"
    other = "other"


class ChoiceName(StrEnum):
    release = "release"
    changes = "changes"
    refuse = "refuse"
    exception = "exception"


FormOption = Annotated[FormName, typer.Option(help="As it is, with cells suppressed, or with counts rounded.")]


@app.command()
def request(
    run: RunFolder,
    key: KeyFile,
    purpose: Annotated[str, typer.Option(help="What the output is for.", show_default=False)],
    analysis: Annotated[
        list[str] | None, typer.Option(help="An analysis to release, again and again; all if left out.", metavar="NAME")
    ] = None,
    what: Annotated[str, typer.Option(help="What it is, in words; the study's planned outputs if left out.")] = "",
    output_class: Annotated[
        ClassName | None, typer.Option("--class", help="What kind of output; from the analyses' methods if left out.")
    ] = None,
) -> None:
    """Ask for a release. For the lead; signed."""
    from fivefold.cli.keys import open_key
    from fivefold.coordinator import airlock

    it = airlock.airlock(run)
    wanted = analysis or [a.name for a in it.study.study.analyses]
    asked = airlock.request(
        it, open_key(key), analyses=wanted, what=what, purpose=purpose, kind=output_class.value if output_class else ""
    )
    typer.echo(
        f"request {asked.number}: {', '.join(asked.analyses)}; waits for {it.study.study.outputs.checks} output checkers"
    )


@app.command("list")
def list_requests(run: RunFolder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """The queue: every request with its age, its state, and what is missing."""
    from fivefold.coordinator import airlock

    found = airlock.queue(airlock.airlock(run))
    now = datetime.now(UTC)
    if as_json:
        import json

        typer.echo(json.dumps([_plain(s, now) for s in found], ensure_ascii=False))
        return
    if not found:
        typer.echo("nothing was asked for; the lead asks with `fivefold outputs request RUN`")
    for s in found:
        typer.echo(f"{s.request.number}  {s.state}, {_days(s.request.age(now))}: {s.request.what}")
        typer.echo(f"   analyses {', '.join(s.request.analyses)} · class {s.request.kind} · purpose: {s.request.purpose}")
        for w in s.words:
            site = f" (own checker of {w.checker.site})" if w.checker.site else ""
            typer.echo(f"   {w.checker.name}{site}: {w.choice} {w.form}" + (f", {w.reason}" if w.reason else ""))
        for line in s.open:
            typer.echo(f"   · {line}")


@app.command()
def show(run: RunFolder, number: Number, key: KeyFile, form: FormOption = FormName.as_is, beside: Beside = None) -> None:
    """Open the request for a checker's eyes: the tables as they would be released."""
    import sys

    from rich.console import Console

    from fivefold.cli.keys import open_key
    from fivefold.coordinator import airlock
    from fivefold.results.show import show_results

    it = airlock.airlock(run)
    made, _ = airlock.proposal(it, airlock.opened(it, open_key(key)), number, _form(form), beside=beside or ())
    show_results(made.results, Console(width=None if sys.stdout.isatty() else 110))


@app.command()
def check(
    run: RunFolder,
    number: Number,
    key: KeyFile,
    form: FormOption = FormName.as_is,
    beside: Beside = None,
    sites: Sites = None,
    coordinator: Coordinator = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as ACRO writes it.")] = False,
) -> None:
    """The automatic checks, rule by rule. For a checker."""
    from fivefold.cli.keys import open_key
    from fivefold.cli.outputs_sites import objecting, reached, shown
    from fivefold.coordinator import airlock

    it, private = airlock.airlock(run), open_key(key)
    held = airlock.opened(it, private)
    with reached(it, sites, coordinator) as engine:
        objections = objecting(engine, it, shown(it, held, number, _form(form), private, beside or ()))
    made, digest = airlock.proposal(it, held, number, _form(form), beside=beside or (), objections=objections)
    if as_json:
        import json

        from fivefold.disclosure.report import acro

        at = datetime.now(UTC).isoformat(timespec="seconds")
        typer.echo(json.dumps(acro(made.report, "fivefold 1", at), ensure_ascii=False))
        return
    asked = next(s.request for s in airlock.queue(it) if s.request.number == number)
    _print_report(asked, made, digest, {n: held.results[n].facts.get("persons") for n in made.results})


@app.command()
def decide(
    run: RunFolder,
    number: Number,
    choice: Annotated[ChoiceName, typer.Argument(help="release, changes, refuse or exception.", show_default=False)],
    key: KeyFile,
    form: FormOption = FormName.as_is,
    reason: Annotated[str, typer.Option(help="Why; needed for everything but a release.")] = "",
    beside: Beside = None,
    sites: Sites = None,
    coordinator: Coordinator = None,
) -> None:
    """Decide, on exactly what would be released. For a checker; signed, logged."""
    from fivefold.cli.keys import open_key
    from fivefold.cli.outputs_sites import objecting, reached, shown
    from fivefold.coordinator import airlock

    it, private = airlock.airlock(run), open_key(key)
    objections = None
    if choice in (ChoiceName.release, ChoiceName.exception) and airlock.is_checker(it, private):
        proposal = shown(it, airlock.opened(it, private), number, _form(form), private, beside or ())
        with reached(it, sites, coordinator) as engine:
            objections = objecting(engine, it, proposal)
    said = airlock.word(it, private, number, _choice(choice), _form(form), reason, beside=beside or (), objections=objections)
    typer.echo(f"{said.checker.name}: {said.choice} ({said.form}) on {said.proposal[:16]}…")
    standing = next(s for s in airlock.queue(it) if s.request.number == number)
    typer.echo(f"request {number}: {standing.state}" + "".join(f"\n  · {line}" for line in standing.open))


@app.command()
def release(
    run: RunFolder,
    number: Number,
    key: KeyFile,
    beside: Beside = None,
    sites: Sites = None,
    coordinator: Coordinator = None,
) -> None:
    """Write the released files, once enough checkers agree. KEY opens the results; the coordinator's own signs."""
    from fivefold.cli.keys import open_key
    from fivefold.cli.outputs_sites import objecting, reached, shown
    from fivefold.coordinator import airlock
    from fivefold.coordinator.objections import enter

    it, private = airlock.airlock(run), open_key(key)
    held = airlock.opened(it, private)
    standing = next((s for s in airlock.queue(it) if s.request.number == number), None)
    if standing is None or standing.agreed is None:
        airlock.release(it, private, number)  # which says what is missing
        return
    proposal = shown(it, held, number, standing.agreed[1], private, beside or ())
    with reached(it, sites, coordinator) as engine:
        place = airlock.release(
            it,
            private,
            number,
            beside=beside or (),
            objections=objecting(engine, it, proposal),
            enter=None if engine is None else lambda: enter(engine, it.study, proposal),
        )
    typer.echo(f"released: {place}")


@app.command()
def recall(
    run: RunFolder,
    number: Number,
    key: KeyFile,
    why: Annotated[str, typer.Option(help="What was wrong; everybody reads it.", show_default=False)],
    crate: Annotated[
        list[Path] | None, typer.Option(help="A package made of the release; RUN-crate beside the run is found.", metavar="DIR")
    ] = None,
    sites: Sites = None,
    coordinator: Coordinator = None,
) -> None:
    """Recall a release that was wrong: a signed notice, entries at both sides, a mark on the release and its packages."""
    from fivefold.cli.keys import open_key
    from fivefold.cli.outputs_sites import reached
    from fivefold.coordinator import airlock
    from fivefold.coordinator import recall as recalls
    from fivefold.coordinator.objections import recalled
    from fivefold.governance.recalls import NOTICE

    it = airlock.airlock(run)
    beside = run.absolute().with_name(f"{run.absolute().name}-crate")
    packages = crate or ([beside] if beside.is_dir() else [])
    for package in packages:  # before anything is said that nobody takes back
        recalls.packed(package)
    said = recalls.recall(it, open_key(key), number, why=why)
    typer.echo(f"recalled: {said.words}")
    with reached(it, sites, coordinator) as engine:
        told = [] if engine is None else recalled(engine, it.study, said.raw)
    notice = run / "released" / f"{number:03d}" / NOTICE
    typer.echo(f"  told {', '.join(told)}" if told else f"  send {notice} to every site: `fivefold site recall NOTICE STUDY`")
    for package in packages:
        marked = recalls.mark(package, said)
        typer.echo(f"  {package}: {'marked as recalled' if marked else 'made of another release, not marked'}")
        if marked and (note := recalls.record_note(package)):
            typer.echo(f"  {note}")
    typer.echo("  What is out stays known: whoever has it is to be told. It still counts in every later check for differences.")


def _print_report(asked: Request, made: Proposal, digest: str, persons: Mapping[str, Scalar]) -> None:
    """`persons`: n by analysis, for the checker's eyes, whether or not it would be shown."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    ink = {"pass": "green", "review": "yellow", "fail": "bold red"}
    console.print(
        f"request {asked.number}, {asked.kind}: {asked.what}\n  purpose: {asked.purpose}\n  persons: {asked.population}"
    )
    for output in made.report.outputs:
        console.print(
            Text.assemble((output.status, ink[output.status]), f"  {output.properties['analysis']}: {output.command}")
        )
        name = output.properties["analysis"]
        n, told = persons[name], made.results[name].facts.get("persons")
        apart = ", not shown: beside the other counts it could tell a few persons apart"
        seen = "" if told == n else apart if told is None else f", shown as {told}"
        cells = len(made.told[name])
        counts = "no count of a declared cell is shown" if not cells else f"{cells} counts of declared cells are shown"
        words = f"{'not known' if n is None else n}{seen}; {counts}"
        console.print(f"   n      {words}; variables {', '.join(output.properties['variables'])}")
        for f in output.findings:
            console.print(
                Text.assemble("   ", (f"{f.status:<6}", ink[f.status]), f" {f.words}", f" ({f.table})" if f.table else "")
            )
    console.print("together")
    for f in made.report.together:
        bound = " (no exception)" if f.binding and f.status == "fail" else ""
        console.print(Text.assemble("   ", (f"{f.status:<6}", ink[f.status]), f" {f.words}{bound}"))
    console.print(f"proposal {digest[:16]}…, {made.report.status}")


def _plain(s: Standing, now: datetime) -> dict[str, object]:
    from dataclasses import asdict

    words = [
        {"checker": w.checker.name, "site": w.checker.site, "choice": w.choice, "form": w.form, "reason": w.reason}
        for w in s.words
    ]
    return asdict(s.request) | {"state": s.state, "open": list(s.open), "age_days": s.request.age(now), "decisions": words}


def _days(days: int) -> str:
    return "since today" if days == 0 else f"since {days} day{'' if days == 1 else 's'}"


def _form(form: FormName) -> Form:
    return form.value


def _choice(choice: ChoiceName) -> Choice:
    return choice.value
