"""`fivefold study list`, `study life`, `study counter`, `study close`: all studies, where one stands at each site, its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fivefold.coordinator.study_register import Register
    from fivefold.governance.life import Life

KeyPath = Annotated[Path, typer.Option("--key", help="The lead's key file.", metavar="FILE", show_default=False)]


def life(
    study: Annotated[
        Path, typer.Argument(help="The signed study, or a run's folder.", metavar="STUDY|RUN", show_default=False)
    ],
    sites: Annotated[
        Path | None, typer.Option(help="Site folders on this machine; `sites` beside the study by default.", metavar="DIR")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a study's life, site by site: every act with who, when, why and on which digest. A run tells it from its own log."""
    from fivefold.cli.life_table import draw, plain

    if sites is not None and not sites.is_dir():
        raise typer.BadParameter(f"{sites} is no folder", param_hint="--sites")
    if study.is_dir():
        from fivefold.coordinator.life import lives_of

        found = lives_of(study)
    else:
        found = _here(study, sites or study.parent / "sites")
    if as_json:
        import json

        typer.echo(json.dumps([plain(one) for one in found.values()], indent=1, ensure_ascii=False))
        return
    draw(found)


def listed(
    folder: Annotated[Path, typer.Argument(help="A folder with studies and runs below it.", metavar="DIR")] = Path("."),
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write a table, one row for each study, run and site.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The register of studies below a folder: lead, purpose, ethics, last day, sites, and where each run stands there."""
    import json

    from fivefold.cli.site_page import plain
    from fivefold.coordinator.study_register import register, table
    from fivefold.records.files import write_named

    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder")
    found = register(folder)
    if csv is not None:
        from fivefold.results.tables import csv_of

        write_named(csv, csv_of(table(found)))
    if as_json:
        unread = {place: error.public() | {"message": error.message} for place, error in found.unread.items()}
        value = {"studies": [e.plain() for e in found.entries], "unread": unread}
        typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
    else:
        for line in _lines(found):
            typer.echo(plain(line))
    if found.unread:
        raise typer.Exit(next(iter(found.unread.values())).exit_code)


def close(
    run: Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN", show_default=False)],
    key: KeyPath,
    why: Annotated[str, typer.Option(help="Why, for the record.")] = "the study ended",
) -> None:
    """End a study: nothing more is run, asked for or released. Each site ends it for itself (`fivefold site close`)."""
    from fivefold.cli.keys import open_key
    from fivefold.coordinator import life as lives
    from fivefold.coordinator.airlock import coordinator_key

    lives.study_of(run)
    own = coordinator_key(run, (run / "run.id").read_text("ascii").strip())
    said = lives.close(run, open_key(key), own, why=why)
    typer.echo(f"closed: statement {said.digest[:16]}…; ask each site to close it, too: `fivefold site close STUDY`")


def counter(
    file: Annotated[Path, typer.Argument(help="A site's counter-proposal.", metavar="FILE", show_default=False)],
    study: Annotated[Path, typer.Argument(help="The signed study that it answers.", metavar="STUDY", show_default=False)],
    key: Annotated[
        Path | None,
        typer.Option("--key", help="The lead's key: accept it, for all sites. Without, it is only shown.", metavar="FILE"),
    ] = None,
    keep_out: Annotated[
        bool, typer.Option("--keep-out", help="Leave the site out of the analyses that it does not want; all else stays.")
    ] = False,
    why: Annotated[str, typer.Option(help="Why, for the record; the site's own words if left out.")] = "",
    out: Annotated[Path | None, typer.Option(help="The new file; STUDY.vN.signed.json by default.", metavar="FILE")] = None,
) -> None:
    """Show a site's counter-proposal, or make the new version of it: one for all sites, each of which approves it anew."""
    from fivefold.cli.keys import open_key
    from fivefold.errors import RunFolderTaken
    from fivefold.governance.answers import read_counter
    from fivefold.governance.proposals import beside, found_beside, read_proposal
    from fivefold.governance.statements import store
    from fivefold.governance.study_check import parsed
    from fivefold.governance.versions import accepted, kept_out, next_version
    from fivefold.study.digest import load_signed, read_bytes

    found = load_signed(study)
    said = read_counter(read_bytes(file), found.study, found.digest)
    typer.echo(f"{said.site} ({said.custodian}, {said.at[:10]}): {said.why}")
    for line in said.wanted.words():
        typer.echo(f"  {line}")
    made = (kept_out if keep_out else accepted)(found.study, said)
    for analysis in made.analyses:
        parsed(made, analysis)
    if key is None:
        typer.echo("Accept it for all sites with --key LEAD; every site then approves the new version anew.")
        return
    raw = found_beside(study, found)
    before = read_proposal(raw, found.study, found.digest) if raw else None
    version = next_version(found, made, said, before, open_key(key), why=why)
    number = read_proposal(version.proposal, version.signed.study, version.signed.digest).version
    stem = study.name.removesuffix(".signed.json").removesuffix(f".v{number - 1}")
    target = out or study.with_name(f"{stem}.v{number}.signed.json")
    if target.exists():  # others may have approved what it says
        raise RunFolderTaken(f"{target} exists already", help="Name another file with --out.")
    store(target, version.signed.to_bytes(), mode=0o644)
    store(beside(target), version.proposal, mode=0o644)
    typer.echo(f"Written: {target}, version {number}\ndigest of the study  {version.signed.digest}")
    typer.echo("Approvals of the version before do not hold for it: send it to every site.")


def _lines(found: Register) -> Iterator[str]:
    for e in found.entries:
        yield f"{e.title}  {e.digest[:16]}…"
        yield f"  {e.lead}, {e.organisation}; until {e.expires}; ethics: {e.ethics}"
        yield f"  {e.purpose}" + (f"; public benefit: {e.public_benefit}" if e.public_benefit else "")
        for run in e.runs:
            states: dict[str, list[str]] = {}
            for site, state in run.sites.items():
                states.setdefault(state, []).append(site)
            where = "; ".join(f"{state} at {', '.join(sites)}" for state, sites in states.items())
            out = f"; {run.released} released" + (f", {run.recalled} recalled" if run.recalled else "") if run.released else ""
            yield f"  {run.folder}  {where}{out}"
        if not e.runs:
            yield f"  no run; proposed to {', '.join(e.sites)}"
    for place, error in found.unread.items():
        yield f"✗ {place}: {error.message}"
    studies, runs = len(found.entries), sum(len(e.runs) for e in found.entries)
    yield f"{studies} {'study' if studies == 1 else 'studies'}, {runs} {'run' if runs == 1 else 'runs'}"


def _here(study: Path, sites: Path) -> dict[str, Life]:
    """Lives as site folders on this machine tell them; of a site that is not here, the lead's proposal alone."""
    from fivefold.governance.life import Parties, lives
    from fivefold.governance.proposals import assumed, found_beside, read_proposal
    from fivefold.site.folder import opened
    from fivefold.site.life import life_of
    from fivefold.study.digest import load_signed

    found = load_signed(study)
    raw = found_beside(study, found)
    act = read_proposal(raw, found.study, found.digest).act() if raw else assumed(found.study, found.digest)
    nodes = {s.name: s.public_key for s in found.study.sites}
    alone = lives(found.digest, nodes, [act], Parties(found.study.lead.public_key, nodes, {}))
    return {
        name: life_of(opened(sites / name), found) if (sites / name / "site.yaml").is_file() else alone[name] for name in nodes
    }
