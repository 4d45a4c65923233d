"""What `fivefold site` shows at length: a study before it is approved, and the quality of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fivefold.study.digest import SignedStudy


def print_study(signed: SignedStudy) -> None:
    """All that a custodian approves; the code of models whole, with its control characters escaped."""
    from rich.markup import escape

    from fivefold.auth.keys import fingerprint
    from fivefold.study.model_code import codes

    study = signed.study
    out = _console()
    out.print(f"[bold]{escape(study.title)}[/]\n{escape(study.question)}", highlight=False, soft_wrap=True)
    lead = fingerprint(bytes.fromhex(study.lead.public_key))
    out.print(
        f"lead      {escape(study.lead.name)}, {escape(study.lead.organisation)}  key {lead}", highlight=False, soft_wrap=True
    )
    out.print(f"digest    {signed.digest}", highlight=False, soft_wrap=True)
    out.print(
        f"purpose   {escape(study.agreements.purpose)}; ethics {escape(study.agreements.ethics)}",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"expires   {study.agreements.expires}; sites {escape(', '.join(s.name for s in study.sites))}",
        highlight=False,
        soft_wrap=True,
    )
    for analysis in study.analyses:
        out.print(
            f"analysis  {escape(analysis.name)}: {escape(analysis.method)} {escape(analysis.formula)}",
            highlight=False,
            soft_wrap=True,
        )
    for digest, source in codes(study.analyses).items():
        out.print(f"code      SHA-256 {digest}; it would run on this site's rows, confined:", highlight=False, soft_wrap=True)
        for number, line in enumerate(source.splitlines(), 1):
            shown = "".join(c if c.isprintable() or c == "\t" else f"\\u{ord(c):04x}" for c in line)
            out.print(f"  {number:4} │ {escape(shown)}", highlight=False, soft_wrap=True)
    for name, why in study.variables.items():
        out.print(f"variable  {escape(name)}: {escape(why)}", highlight=False, soft_wrap=True)


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
