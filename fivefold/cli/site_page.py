"""What `fivefold site` shows at length: a study before it is approved, and the quality of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from fivefold.study.digest import SignedStudy


def print_study(signed: SignedStudy, proposal: bytes = b"") -> None:
    """All that a custodian approves: the study, page for page, the code of its models whole, and where the lead's `proposal`
    tells other threats than this installation does."""
    from fivefold.cli.study_page import page
    from fivefold.governance.proposals import read_proposal, told_otherwise
    from fivefold.study.model_code import codes

    study = signed.study
    lines = page(study, signed.digest).splitlines()
    for digest, source in codes(study.analyses).items():
        lines.append(f"code      SHA-256 {digest}; it would run on this site's rows, confined:")
        lines += [f"  {number:4} │ {line}" for number, line in enumerate(source.splitlines(), 1)]
    if proposal:
        said = read_proposal(proposal, study, signed.digest)
        lines += [f"threats   {line}" for line in told_otherwise(said, study)]
    for line in lines:
        typer.echo(plain(line))


def plain(text: str) -> str:
    """A line of somebody else's text with every control character escaped: a terminal obeys none of them."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\u{ord(c):04x}" for c in text)


def print_report(report: Any) -> None:
    """The quality report as a table; its counts are for the custodian's eyes."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title=f"Rows of {report['site']} after mapping", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    counts = {
        "rows": "rows",
        "valid": "valid",
        "missing": "miss-\ning",
        "missing_coded": "coded",
        "out_of_type": "not of\ntype",
        "out_of_range": "off\nrange",
        "unknown_code": "no\ncode",
        "not_finite": "NaN,\ninf",
    }
    grid.add_column("variable", overflow="fold", min_width=12)
    grid.add_column("unit", overflow="fold")
    for heading in counts.values():
        grid.add_column(heading, justify="right", no_wrap=True)
    for variable in report["variables"]:
        grid.add_row(escape(variable["name"]), escape(variable["unit"]), *(str(variable[c]) for c in counts))
    out = _console()
    out.print(grid)
    out.print(
        f"{report['rows_read']} rows read; {report['rows_without_person']} without a person; {report['rows_opted_out']} of "
        f"{report['persons_opted_out']} persons who opted out; {report['rows_outside_cohort']} outside the cohort; "
        f"{report['rows_cohort_unknown']} of which it is not known; "
        f"{report['rows']} rows of {report['persons']} persons in the cohort",
        highlight=False,
        soft_wrap=True,
    )
    for line in report.get("surplus", ()):
        out.print(f"[yellow]![/] {escape(line)}", highlight=False, soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    return Console()
