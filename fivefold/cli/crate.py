"""`fivefold crate`: pack a run as a research package, look into it, validate it, reproduce it, publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fivefold.study.digest import SignedStudy

app = typer.Typer(
    help="Pack a run as a research package (crate); look into it, validate, reproduce, publish.",
    no_args_is_help=True,
    add_completion=False,
)

RunFolder = Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN", show_default=False)]
CratePath = Annotated[Path, typer.Argument(help="A packed crate, or a run folder.", metavar="CRATE", show_default=False)]
KeyFile = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The lead's key, to sign with; RUN/coordinator.key by default.")
]


class Journal(StrEnum):
    sealed = "sealed"
    open = "open"
    none = "none"


@app.command()
def build(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The package's folder; RUN-crate beside the run by default.")] = None,
    evidence: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What a site handed over (`site evidence`); once a site.")
    ] = None,
    sites: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Site folders of a run on one machine: their evidence is fetched here.")
    ] = None,
    key: KeyFile = None,
    journal: Annotated[
        Journal, typer.Option(help="The aggregates, for a replay: sealed to the coordinator, open (public records), or none.")
    ] = Journal.sealed,
    reader: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Public key of an auditor who may open the journal, too.")
    ] = None,
    release: Annotated[int, typer.Option(metavar="N", help="Which release of the run; the newest by default.")] = 0,
    as_zip: Annotated[bool, typer.Option("--zip", help="Write CRATE.zip, too.")] = False,
) -> None:
    """Pack a finished run: a Five Safes crate around the run's own, as a signed BagIt bag."""
    from fivefold.auth.keys import public_from_hex
    from fivefold.coordinator import package
    from fivefold.coordinator.airlock import coordinator_key
    from fivefold.coordinator.life import study_of
    from fivefold.coordinator.sealing import KEY_PLACE
    from fivefold.errors import KeyProblem
    from fivefold.records.bag import zip_bag
    from fivefold.site.folder import read_private

    found = study_of(run)
    said = [path.read_bytes() for path in evidence or ()] or fetched(sites or run.absolute().parents[1] / "sites", found)
    own = coordinator_key(run, (run / "run.id").read_text("ascii").strip())
    if own is None:
        raise KeyProblem("only the coordinator packs a run, and its key cannot be read here", help=f"Name it with {KEY_PLACE}.")
    target = out or run.absolute().with_name(f"{run.absolute().name}-crate")
    package.build(
        run,
        target,
        said,
        read_private(key) if key else own,
        journal=journal.value,
        coordinator=own,
        readers=[public_from_hex(one) for one in reader or ()],
        release=release,
    )
    typer.echo(f"✓ packed {run} into {target}: {len(said)} sign-offs, journal {journal.value}, signed")
    if as_zip:
        typer.echo(f"✓ wrote {zip_bag(target, target.with_name(target.name + '.zip'))}")
    typer.echo(f"Next: fivefold crate validate {target}")


def fetched(sites: Path, found: SignedStudy) -> list[bytes]:
    """The evidence of site folders on this machine: of a rehearsal, where one hand holds all of them."""
    from fivefold.errors import CrateInvalid
    from fivefold.site.evidence import evidence_of
    from fivefold.site.folder import opened

    here = [sites / s.name for s in found.study.sites if (sites / s.name / "site.yaml").is_file()]
    if not here:
        raise CrateInvalid(
            f"there is no evidence, and no site folder in {sites}",
            help="Ask each site for `fivefold site evidence STUDY` and name its file with --evidence.",
        )
    return [evidence_of(opened(path), found) for path in here]


@app.command()
def validate(
    folder: CratePath,
    recommended: Annotated[bool, typer.Option("--recommended", help="Check what the profiles recommend, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every file, signature and sign-off, and the profiles (base, run, Five Safes), offline. Exit code 56 if not."""
    from fivefold.coordinator.package_check import is_package

    (_validate_package if is_package(folder) else _validate_run)(folder, recommended, as_json)


def _validate_package(folder: Path, recommended: bool, as_json: bool) -> None:
    from fivefold.coordinator.package_check import check
    from fivefold.errors import CrateInvalid

    findings = check(folder, recommended=recommended)
    faults = [fault for one in findings for fault in one.faults]
    if as_json and not faults:
        import json

        typer.echo(json.dumps([{"found": f.words, "checked": f.checked} for f in findings], ensure_ascii=False))
    elif not as_json:
        for one in findings:
            if not one.faults:
                typer.echo(f"{'✓' if one.checked else ' '} {one.words}")
    if faults:
        raise CrateInvalid(_few(faults), help="Take the package from a copy, or pack the run again.")


def _validate_run(folder: Path, recommended: bool, as_json: bool) -> None:
    from fivefold.errors import CrateInvalid
    from fivefold.records.validation import changed_files, profile_faults, validator

    faults = changed_files(folder)
    command = validator()
    if command is not None:
        faults += profile_faults(folder, command, "recommended" if recommended else "required")
    if as_json and not faults:
        import json

        typer.echo(json.dumps({"files": "unchanged", "profile": "accepted" if command else "not checked"}))
    if faults:
        raise CrateInvalid(_few(faults), help="Take the files from a copy, or run the study again.")
    if as_json:
        return
    typer.echo(f"✓ every file of {folder} is as the crate describes it")
    if command is not None:
        level = "RECOMMENDED" if recommended else "REQUIRED"
        typer.echo(f"✓ rocrate-validator accepts it as a Provenance Run Crate 0.5 ({level} rules)")
        return
    typer.echo("  rocrate-validator is not installed, so the profile's rules were not checked.")
    typer.echo("  Make its environment with `sh tools/make_env.sh crate`, or name the command in FIVEFOLD_ROCRATE_VALIDATOR.")


def _few(faults: list[str]) -> str:
    return "; ".join(faults[:10]) + (f" and {len(faults) - 10} more" if len(faults) > 10 else "")


@app.command()
def show(folder: CratePath) -> None:
    """Print the story: the question, who asked, who signed off, each site, each analysis, the files."""
    from rich.console import Console
    from rich.text import Text

    from fivefold.coordinator.package_check import is_package
    from fivefold.coordinator.recall import why_not
    from fivefold.records.bag import payload_of
    from fivefold.records.validation import read_crate

    console = Console(highlight=False, soft_wrap=True)
    inside = payload_of(folder)
    if is_package(folder):
        outer = read_crate(inside)
        inside = inside / "run"
    crate = read_crate(inside)
    root = crate.get("./", {})
    console.print(Text(str(root.get("name", "")), "bold"))
    console.print(Text(str(crate.get(_id(root.get("mainEntity")), {}).get("description", ""))))
    author = crate.get(_id(root.get("author")), {})
    run = crate.get("#run", {})
    console.print(Text(f"asked by {author.get('name', '')}; {run.get('description', '')}", "dim"))
    page = payload_of(folder) / "ro-crate-preview.html"
    console.print(Text(f"licence {_id(root.get('license'))}; preview {page}", "dim"))
    if is_package(folder):
        if recalled := why_not(folder):
            console.print(Text(f"RECALLED: {recalled}", "bold red"))
        console.print(Text("\nThe Five Safes, phase by phase", "bold"))
        for entity in outer.values():
            if entity.get("@type") in ("AssessAction", "UpdateAction"):
                console.print(_line({"description": _when(entity)} | dict(entity)))
    for heading, prefix in (("Sites", "#answers-"), ("Analyses", "#analysis-")):
        console.print(Text(f"\n{heading}", "bold"))
        for name, entity in crate.items():
            if name.startswith(prefix) and entity.get("@type") == "CreateAction":
                console.print(_line(entity))
    console.print(Text("\nFiles", "bold"))
    for name, entity in crate.items():
        if "File" in entity.get("@type", ()):
            size = f"{int(entity['contentSize']):,} bytes" if "contentSize" in entity else ""
            console.print(Text.assemble(f"  {name}", (f"  {size}", "dim")))


@app.command()
def reproduce(
    crate: CratePath,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The key that opens the sealed journal.")] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A later run of the same study: name the first round that differs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay the aggregates: is the result's digest the same? Exit code 91 where it is not; no row is read, no site asked."""
    from dataclasses import asdict

    from fivefold.coordinator.package_check import reproduction
    from fivefold.errors import NotReproduced
    from fivefold.site.folder import read_private

    found, changed, noisy = reproduction(crate, read_private(key) if key else None, against)
    if as_json and found.outcome != "different" and not changed:
        import json

        typer.echo(json.dumps(asdict(found) | ({"noise": asdict(noisy)} if noisy else {})))
        return
    if found.outcome == "different":
        raise NotReproduced(f"the result does not follow from the aggregates. First difference: {found.difference}")
    if changed:
        raise NotReproduced(f"the runs differ. First difference: {changed}")
    if found.outcome == "identical":
        typer.echo(f"✓ reproduced: the result's digest is the same, {found.now}")
    else:
        typer.echo(f"✓ reproduced numerically: no value differs by more than {found.largest:.1e}")
        typer.echo(f"  digest then {found.then}\n  digest now  {found.now}  (another CPU kernel adds up in another order)")
    if noisy is not None:
        typer.echo(
            f"✓ the runs agree within their noise: {noisy.numbers} numbers of {noisy.rounds} rounds, the largest difference"
        )
        typer.echo(f"  is {noisy.largest:.1f} deviations of the noise (up to {noisy.bound:.1f} may be)")
        if noisy.others:
            typer.echo(
                f"  {noisy.others} rounds asked what followed from noise, so the runs did not ask them alike: not compared"
            )


class Repository(StrEnum):
    zenodo = "zenodo"


@app.command()
def publish(
    crate: Annotated[Path, typer.Argument(help="A packed crate.", metavar="CRATE", show_default=False)],
    to: Annotated[Repository, typer.Option("--to", help="Where to.")] = Repository.zenodo,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Zenodo's sandbox, for a try.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Publish it: that cannot be undone. Else it stays a draft.")] = False,
    new_version_of: Annotated[int, typer.Option(metavar="ID", help="The number of an earlier record.", show_default=False)] = 0,
    community: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A community to hand it to.")] = None,
    related: Annotated[
        list[str] | None, typer.Option(metavar="RELATION=ID", help="What it belongs to, such as isSupplementTo=10.1234/abc.")
    ] = None,
) -> None:
    """Upload to a repository as a draft; publish with --yes. After a cut the same command goes on where it stopped."""
    from fivefold.coordinator.publication import to_zenodo

    pairs = [tuple(one.split("=", 1)) for one in related or ()]
    if any(len(pair) != 2 for pair in pairs):
        raise typer.BadParameter("write RELATION=ID, such as isSupplementTo=10.1234/abc", param_hint="--related")
    with _progress() as tell:
        found = to_zenodo(
            crate,
            sandbox=sandbox,
            publish=yes,
            new_version_of=new_version_of,
            communities=community or (),
            related=[(pair[0], pair[1]) for pair in pairs],
            tell=tell,
        )
    if found.published:
        typer.echo(f"✓ published: {found.doi}  {found.page}")
        return
    typer.echo(f"✓ uploaded as a draft, number {found.number}: {found.page}")
    typer.echo(f"  It will have the DOI {found.doi}. Look at it, then publish: the same command with --yes.")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar of the bytes sent, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("upload", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("upload", total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)


def _line(entity: Mapping[str, Any]) -> Any:
    from rich.text import Text

    state = str(entity.get("actionStatus", ""))
    waiting = state.endswith(("PotentialActionStatus", "ActiveActionStatus"))
    mark = ("… ", "yellow") if waiting else ("✓ ", "green") if state.endswith("CompletedActionStatus") else ("✗ ", "red")
    return Text.assemble("  ", mark, str(entity.get("name", "")), (f"  {entity.get('description', '')}", "dim"))


def _when(entity: Mapping[str, Any]) -> str:
    return str(entity.get("endTime", ""))[:10]


def _id(reference: Any) -> str:
    return str(reference.get("@id", "")) if isinstance(reference, Mapping) else ""
