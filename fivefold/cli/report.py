"""`fivefold report`: the evidence of a run on one page, for an ethics board, a custodian, an auditor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def report(
    what: Annotated[
        Path, typer.Argument(help="A packed crate, a run folder, or a study whose newest run is meant.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; evidence.html beside it by default.")] = None,
    evidence: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What a site handed over (`site evidence`); once a site.")
    ] = None,
    sites: Annotated[Path | None, typer.Option(metavar="DIR", help="Site folders of a run on one machine.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF, too.")] = False,
) -> None:
    """The Five Safes with their evidence on one page: approvals, privacy spent, what was released, log heads."""
    from fivefold.cli.crate import fetched
    from fivefold.coordinator.evidence_pack import newest_run, of_package, of_run
    from fivefold.coordinator.package_check import is_package
    from fivefold.coordinator.run_record import STUDY_FILE
    from fivefold.records.files import write_named
    from fivefold.records.five_safes_page import page
    from fivefold.study.digest import load_signed

    if is_package(what):
        package, place = of_package(what), what.parent
    else:
        run = place = newest_run(what)
        found = load_signed(run / STUDY_FILE)
        said = [path.read_bytes() for path in evidence or ()]
        package = of_run(run, said or fetched(sites or run.absolute().parents[1] / "sites", found))
    target = out or place / "evidence.html"
    html = page(package)
    write_named(target, html.encode())
    typer.echo(f"✓ wrote {target}")
    if pdf:
        from fivefold.records.five_safes_pdf import pdf_of

        write_named(target.with_suffix(".pdf"), pdf_of(html, package.study.title))
        typer.echo(f"✓ wrote {target.with_suffix('.pdf')}")
