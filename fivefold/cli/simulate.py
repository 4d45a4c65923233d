"""`fivefold simulate STUDY`: how a study would learn over many clients, on one machine, ungoverned."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from fivefold.engines.simulated_clients import Clients
    from fivefold.engines.simulation import Answers, Progress, Simulation
    from fivefold.protocol.results import Result
    from fivefold.study.definition import Study

Engines = Literal["local", "ray"]
WARNING = "A simulation: made clients, no site, no approval, no gate. It says nothing about what may be done."
app = typer.Typer(add_completion=False)


@app.command()
def simulate(
    study: Annotated[Path, typer.Argument(help="study.yaml, or a signed study.", metavar="STUDY", show_default=False)],
    clients: Annotated[
        int | None, typer.Option(min=1, help="How many clients there are; 1000, or as many as a natural partition has.")
    ] = None,
    roster: Annotated[int | None, typer.Option(min=1, help="How many answer each round; 100, or all where fewer are.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each training, in place of the study's.")] = None,
    partition: Annotated[
        str,
        typer.Option(
            help="How rows spread over clients: iid, dirichlet:0.3, label:2, quantity:0.5, natural (each site a client), "
            "natural:VARIABLE, natural:person."
        ),
    ] = "iid",
    rows: Annotated[int, typer.Option(min=1, max=100_000, help="Rows at a client, about.")] = 20,
    sites: Annotated[
        Path | None,
        typer.Option(help="Site folders whose rows are partitioned; `sites` beside the study if there, else rows are made up."),
    ] = None,
    made_up: Annotated[bool, typer.Option("--made-up", help="Make rows up from the dictionary; read none.")] = False,
    secure: Annotated[bool, typer.Option("--secure", help="Run the secure sum among the roster, in this process.")] = False,
    engine: Annotated[
        Engines, typer.Option(help="local: this process. ray: shares of the roster on the workers of a Ray cluster.")
    ] = "local",
    address: Annotated[str, typer.Option(help="ray: the cluster's address; a local one by default.", metavar="ADDRESS")] = "",
    out: Annotated[Path | None, typer.Option(help="A new folder for result.json, tables and plots.", metavar="DIR")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no tables.")] = False,
) -> None:
    """Play a study over many simulated clients, made when they are needed: how it would learn, not what it may do."""
    from fivefold.engines.simulation import InProcess, simulate, with_rounds
    from fivefold.errors import RunFolderTaken, SimulationInvalid
    from fivefold.models.lora import bring
    from fivefold.study.model_code import bases

    if out is not None and out.exists() and any(out.iterdir()):
        raise RunFolderTaken(f"{out} already holds a run or other files")
    if address and engine != "ray":
        raise SimulationInvalid("--address names a Ray cluster", help="Write --engine ray, too, or leave --address out.")
    if secure and engine == "ray":
        raise SimulationInvalid("the secure sum is simulated in one process", help="Leave --secure or --engine ray out.")
    read = _read(study)
    told = with_rounds(read, rounds)
    if wanted := bases(read.analyses):
        bring(study.parent, wanted)
    source = _clients(read, study.parent / "sites", sites, made_up, partition, clients, rows)
    answering = min(100, source.count) if roster is None else roster
    answers: Answers = InProcess(source) if engine == "local" else _ray(source, address)
    with _shown(quiet or json) as tell:
        done = simulate(told, source, answering, answers=answers, secure=secure, tell=tell)
    _end(done, told, engine, out, json=json, quiet=quiet)


def _read(path: Path) -> Study:
    from fivefold.study.digest import load_signed
    from fivefold.study.yaml import load

    return load_signed(path).study if path.suffix == ".json" else load(path)


def _clients(
    study: Study, beside: Path, sites: Path | None, made_up: bool, partition: str, clients: int | None, rows: int
) -> Clients:
    from fivefold.data.partitions import parse
    from fivefold.engines.simulated_clients import made_up_rows, real_rows
    from fivefold.errors import SimulationInvalid
    from fivefold.study.formula import Survival
    from fivefold.study.formula import parse as parse_formula

    spread = parse(partition)
    formulas = [parse_formula(a.formula) for a in study.analyses if "~" in a.formula]
    outcomes = [f.response for f in formulas if f.response and not isinstance(f.response, Survival)]
    outcome = str(outcomes[0]) if outcomes else ""
    folder = sites or beside
    if made_up or (sites is None and not beside.is_dir()):
        if made_up and sites is not None:
            raise SimulationInvalid("--made-up and --sites exclude each other", help="Leave one of them out.")
        return made_up_rows(study.phenotypes, outcome, spread, clients=clients, rows=rows, seed=study.seed)
    tables = [_table(study, folder, s.name) for s in study.sites]
    return real_rows(tables, outcome, spread, clients=clients, rows=rows, seed=study.seed)


def _table(study: Study, sites: Path, name: str) -> Any:
    from datetime import UTC, datetime

    from fivefold.errors import SourceNotFound
    from fivefold.governance.policy import decide
    from fivefold.site.folder import opened
    from fivefold.site.preparation import inspect

    if not (sites / name / "site.yaml").exists():
        raise SourceNotFound(
            f"there is no site folder for {name} in {sites}", help="Say where the folders are with --sites, or write --made-up."
        )
    site, when = opened(sites / name), datetime.now(UTC)
    decide(site.policy(when), study, today=when.date()).enforce()  # its rows, its word: on code above all
    return inspect(site, study, when).table


def _ray(clients: Clients, address: str) -> Answers:
    from fivefold.engines.ray_cluster import RayCluster

    return RayCluster(clients, address)


@contextmanager
def _shown(silent: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar that tells round, question and pace."""
    if silent:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("round {task.completed:>4.0f} of at most {task.total:.0f}  {task.description}")
    with Progress(words, BarColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)

        def tell(at: Any) -> None:
            pace = f"{at.answers / max(at.seconds, 1e-9):,.0f} answers/s"
            bar.update(task, completed=at.round, total=at.rounds, description=f"{at.analysis}: {at.step}  {pace}")

        yield tell


def _end(done: Simulation, study: Study, engine: str, out: Path | None, *, json: bool, quiet: bool) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from fivefold.protocol.results import Result
    from fivefold.replay.cursor import Ended
    from fivefold.results.show import show_results
    from fivefold.results.write import json_of, write_result

    results = {name: _marked(r, done) for name, r in done.results.items() if isinstance(r, Result)}
    ended = {name: r for name, r in done.results.items() if isinstance(r, Ended)}
    pace = {"seconds": round(done.seconds, 3), "answers": done.answers, "answers_per_second": round(done.answers_per_second)}
    meta: Mapping[str, Any] = {
        "title": study.title, "seed": study.seed, "ended": {n: asdict(e) for n, e in ended.items()}, "rounds": done.rounds,
        "simulation": done.facts(), "run": {"engine": f"simulation, {engine}", **pace},
    }  # fmt: skip
    if out is not None:
        write_result(out, results, meta)
    if json:
        typer.echo(json_of(results, meta).decode(), nl=False)
    elif not quiet:
        console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
        secure = f"secure sum among them ({done.bytes_between_parties:,} bytes of messages)" if done.secure else "plain sums"
        console.print(f"[bold yellow]{WARNING}[/]")
        console.print(f"{done.roster:,} of {done.clients:,} clients a round · {done.about} · {secure}")
        console.print(
            f"{done.rounds} rounds in {done.seconds:.1f} s: {done.answers_per_second:,.0f} answers of clients a second\n"
        )
        show_results(results, console)
    for name, end in ended.items():
        Console(stderr=True).print(f"{name} ended without a result: {end.message}. {end.help}", style="yellow", highlight=False)
    if out is not None and not json:
        typer.echo(f"Simulation folder: {out}")
    if ended:
        raise typer.Exit(next(iter(ended.values())).exit_code)


def _marked(result: Result, done: Simulation) -> Result:
    """A result that says of itself what it is, under every table too; places of the roster are no sites."""
    tables = {name: replace(t, notes=(*t.notes, WARNING)) for name, t in result.tables.items()}
    words = f"{done.roster:,} of {done.clients:,} simulated clients answered each round."
    return replace(result, tables=tables, notes=(*result.notes, words, WARNING), sites=(), dropped=())
