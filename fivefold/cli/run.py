"""`fivefold run STUDY`: run a signed study over its sites."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from fivefold.coordinator.rounds import Engine
    from fivefold.coordinator.session import Run
    from fivefold.study.digest import SignedStudy

Engines = Literal["local", "flare", "flower", "ray"]
app = typer.Typer(add_completion=False)


@app.command()
def run(
    study: Annotated[
        Path,
        typer.Argument(
            help="study.yaml with study.signed.json beside it, or the signed file.", metavar="STUDY", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the run; a new one beside the study by default.")] = None,
    sites: Annotated[Path | None, typer.Option(help="Where the site folders are; `sites` beside the study by default.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Another seed than the study's, once lead (`fivefold study reseed`) and custodians agreed."),
    ] = None,
    vary: Annotated[
        list[Path] | None,
        typer.Option(help="Answer this signed variation in place of the study's analyses; again for more.", metavar="FILE"),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    engine: Annotated[
        Engines,
        typer.Option(
            help="local: all sites in this process. flare: each a client of NVIDIA FLARE's simulator. flower: each a process "
            "of its own, over the coordinator's SuperLink."
        ),
    ] = "local",
    coordinator: Annotated[
        Path | None, typer.Option(help="flower: the coordinator's folder; `coordinator` beside the study by default.")
    ] = None,
    superlink: Annotated[
        str, typer.Option(help="flower: where the SuperLink listens, if not there.", metavar="HOST:PORT")
    ] = "",
    deadline: Annotated[
        float, typer.Option(help="flower: seconds after which a site that does not answer is absent.", min=1.0)
    ] = 600.0,
    patience: Annotated[
        float, typer.Option(help="flower: seconds for which a SuperLink that is lost in the run is sought again.", min=0.0)
    ] = 300.0,
    flare_python: Annotated[
        Path | None, typer.Option(help="flare: an environment with nvflare; .venv-flare by default.")
    ] = None,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="No rehearsal: results are encrypted to the study's output checkers.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no tables.")] = False,
) -> None:
    """Run every analysis of a signed study: on one machine, a rehearsal of the whole consortium, or over its real sites."""
    from rich.console import Console

    from fivefold.coordinator.rounds import Progress
    from fivefold.coordinator.run_log import refusals
    from fivefold.coordinator.session import run as run_study
    from fivefold.errors import RunInterrupted
    from fivefold.governance.proposals import found_beside
    from fivefold.protocol.results import Result
    from fivefold.replay.plan import plan_of
    from fivefold.results.show import show_results
    from fivefold.study.digest import load_signed, read_bytes, signed_file
    from fivefold.study.reseed import load_reseeded

    if out is not None and resume is not None:
        raise typer.BadParameter("a run goes on in its own folder: give --out or --resume, not both", param_hint="--out")
    if engine == "ray":
        from fivefold.engines.ray_cluster import refuse_real_sites

        refuse_real_sites(study)
    signed = signed_file(study)
    found = load_signed(signed)
    _unchanged(study, found.digest)
    found = found if seed is None else load_reseeded(signed, found, seed)
    variations = [read_bytes(path) for path in vary or ()]
    plan_of(found.study, variations)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = resume or out or signed.parent / "runs" / stamp
    errors = Console(stderr=True, soft_wrap=True)

    def tell(at: Progress) -> None:
        if not (quiet or json):
            again = f", attempt {at.attempt}" if at.attempt > 1 else ""
            errors.print(
                f"round {at.round:>3}  {at.analysis}: {at.step}  {at.answered} of {at.sites} sites{again}", highlight=False
            )

    try:
        over = Over(coordinator or signed.parent / "coordinator", superlink, deadline)

        def work(carrier: Engine, again: bool) -> Run:
            return run_study(
                found,
                carrier,
                folder,
                tell=tell,
                engine_name=engine,
                resume=again or resume is not None,
                sealed=sealed,
                variations=variations,
                proposal=b"" if seed is not None else found_beside(signed, found),
            )

        def carried() -> AbstractContextManager[Engine]:
            return _engine(engine, found, sites or signed.parent / "sites", flare_python, over)

        if engine == "flower":
            from fivefold.engines.flower.lasting import lasting

            done = lasting(carried, work, patience=patience, tell=lambda line: errors.print(line, highlight=False))
        else:
            with carried() as carrier:
                done = work(carrier, False)
    except KeyboardInterrupt:
        told: dict[str, object] = {"--engine": None if engine == "local" else engine, "--seed": seed, "--sites": sites}
        told |= {"--coordinator": coordinator, "--superlink": superlink or None}
        words = _again(study, folder, told, vary or (), sealed)
        raise RunInterrupted("interrupted; nothing is lost", help=f"Continue with `{words}`.") from None
    if done.sealed:
        typer.echo((done.folder / "status.json").read_text("utf-8"), nl=False)
        if not json:
            typer.echo(f"Run folder: {done.folder}; the lead asks for outputs with `fivefold outputs request`")
        return
    ended = {name: r for name, r in done.results.items() if not isinstance(r, Result)}
    if json:
        typer.echo((done.folder / "result.json").read_text("utf-8"))
    elif not quiet:
        shown = {name: r for name, r in done.results.items() if isinstance(r, Result)}
        show_results(shown, Console(width=None if sys.stdout.isatty() else 110))
    for site in sorted({s for r in done.results.values() if isinstance(r, Result) for s in r.dropped}):
        errors.print(_left_out(site, refusals(done.folder)), style="yellow", highlight=False)
    for name, end in ended.items():
        errors.print(f"{name} ended without a result: {end.message}. {end.help}", style="yellow", highlight=False)
    if not json:
        typer.echo(f"Run folder: {done.folder}")
    if ended:
        raise typer.Exit(next(iter(ended.values())).exit_code)


def _again(study: Path, folder: Path, told: Mapping[str, object], vary: Sequence[Path], sealed: bool) -> str:
    """The command that goes on with a run: what was told to the first one, and where it lies."""
    import shlex

    options = [(name, str(value)) for name, value in told.items() if value is not None]
    options += [("--vary", str(path)) for path in vary]
    words = [word for option in options for word in option] + ["--sealed"] * sealed
    return shlex.join(["fivefold", "run", str(study), *words, "--resume", str(folder)])


class Over(NamedTuple):
    """Where a coordinator's SuperLink is, and how long (seconds) it waits for a site."""

    folder: Path
    superlink: str
    deadline: float


def _left_out(site: str, refusals: Mapping[str, tuple[str, str]]) -> str:
    """Why a site is not in a result, as far as the coordinator may know."""
    code, rule = refusals.get(site, ("", ""))
    if not code:
        return f"{site} dropped out; the results are those of the other sites"
    why = f"{code}, rule {rule}" if rule else code
    return f"{site} refused ({why}), so the results are those of the other sites. Its own log says why."


@contextmanager
def _engine(name: Engines, found: SignedStudy, sites: Path, flare_python: Path | None, over: Over) -> Iterator[Engine]:
    """What carries the messages of this run."""
    if name == "flower":
        from fivefold.engines.flower.grid import flower_engine

        keys = {s.name: bytes.fromhex(s.public_key) for s in found.study.sites}
        with closing(flower_engine(over.folder, keys, address=over.superlink, deadline=over.deadline)) as flower:
            yield flower
        return
    if name == "flare":
        from fivefold.engines.flare.simulator import flare_simulator

        with closing(flare_simulator(found, sites, flare_python)) as simulator:
            yield simulator
        return
    from fivefold.engines.concurrent import ConcurrentEngine
    from fivefold.engines.local import LocalEngine, local_nodes
    from fivefold.replay.buffered import buffers_of

    nodes = local_nodes(sites, tuple(s.name for s in found.study.sites))
    in_turn = found.study.stragglers.policy == "wait" and not buffers_of(found.study, ())
    with closing(LocalEngine(nodes) if in_turn else ConcurrentEngine(nodes)) as local:
        yield local


def _unchanged(study: Path, digest: str) -> None:
    """The YAML file that was named is the one that was signed. Raises `StudyAltered`."""
    from fivefold.errors import StudyAltered
    from fivefold.study.digest import digest as digest_of
    from fivefold.study.yaml import load

    if study.suffix != ".json" and digest_of(load(study)) != digest:
        raise StudyAltered(f"{study} was changed after it was signed")
