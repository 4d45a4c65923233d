"""`fivefold audit`: verify and read an audit log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fivefold.records.audit import Report
    from fivefold.records.witness import Compared

app = typer.Typer(help="Verify and read an audit log.", no_args_is_help=True, add_completion=False)

LogFile = Annotated[Path, typer.Argument(help="The log, such as RUN/audit.jsonl.", metavar="FILE", show_default=False)]


Key = Annotated[str, typer.Option(help="The public key (64 hex digits) that must have signed.", metavar="HEX")]
Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        "--head",
        help="Another party's log, a copy of this one, a research package, or a head that was kept or lodged; again and again.",
        metavar="FILE",
    ),
]


@app.command()
def verify(
    file: LogFile,
    key: Key = "",
    others: Others = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find any changed, removed, reordered or cut-off entry, and any that others witnessed and the log lacks. Exit code 55 if
    there is one."""
    found, compared = _verified(file, key, others)
    if as_json:
        import json
        from dataclasses import asdict

        held = {"witnessed": dict(compared.heads), "witnessed_to": compared.last} if compared is not None else {}
        typer.echo(json.dumps(asdict(found) | held, sort_keys=True))
        return
    _print(file, found, bool(key), compared)


@app.command()
def head(
    file: LogFile,
    out: Annotated[Path | None, typer.Option(help="Write it here instead, to be given to a witness.", metavar="FILE")] = None,
) -> None:
    """Verify the log, then print its signed head: whoever keeps it can show later that the log was put back or written anew."""
    from fivefold.records import audit
    from fivefold.records.audit_entries import line_of
    from fivefold.records.files import write_named

    audit.verify(file)
    end = audit.read_head(file.with_name(file.name + ".head"), "")
    assert end is not None
    if out is None:
        typer.echo(line_of(end), nl=False)
    else:
        write_named(out, line_of(end))
        typer.echo(f"Written: {out} (entry {end.seq} of {end.owner})")


@app.command()
def lodge(
    head_file: Annotated[Path, typer.Argument(help="The head that you were given.", metavar="HEAD", show_default=False)],
    key: Annotated[Path, typer.Option(help="Your own private key.", metavar="KEYFILE", show_default=False)],
    name: Annotated[str, typer.Option(help="Who you are, as an auditor will read it.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Write it here; keep it, and give the owner a copy.", metavar="FILE")],
) -> None:
    """For a third party (notary, ethics office, colleague): sign that you were shown this head now."""
    from fivefold.cli.keys import open_key
    from fivefold.errors import RunError
    from fivefold.records.audit import read_head
    from fivefold.records.lodged import lodge as sign

    found = read_head(head_file, "")
    if found is None:
        raise RunError(f"there is no head at {head_file}", help="The log's owner makes one: `fivefold audit head LOG --out`.")
    lodged = sign(found, out, open_key(key), name)
    typer.echo(f"Written: {out} (entry {found.seq} of {found.owner}, seen by {lodged.witness}, {lodged.at})")


@app.command()
def export(
    file: LogFile,
    out: Annotated[Path | None, typer.Option(help="Write it here instead of the standard output.", metavar="FILE")] = None,
    others: Others = None,
) -> None:
    """Verify the log, then print it as JSON lines for another program, each entry with its chapter."""
    from fivefold.records.audit_report import exported
    from fivefold.records.files import write_named

    _verified(file, "", others)
    if out is None:
        for line in exported(file):
            typer.echo(line)
        return
    write_named(out, "".join(f"{line}\n" for line in exported(file)).encode())
    typer.echo(f"Written: {out}")


@app.command()
def report(
    file: LogFile,
    out: Annotated[Path, typer.Option(help="The page: .html, or .md for Markdown.", metavar="FILE", show_default=False)],
    key: Key = "",
    others: Others = None,
) -> None:
    """Verify the log, then write a page that people can read: attempts, refusals, errors, outputs, agreements, training."""
    from fivefold.records.audit_report import html, markdown
    from fivefold.records.files import write_named

    if out.suffix not in (".html", ".md"):
        raise typer.BadParameter("name a file that ends in .html or .md", param_hint="--out")
    found, compared = _verified(file, key, others)
    make = markdown if out.suffix == ".md" else html
    write_named(out, make(file, found, compared).encode())
    typer.echo(f"Written: {out}")


@app.command()
def show(
    file: LogFile,
    event: Annotated[str, typer.Option(help="Only entries of this event.")] = "",
    last: Annotated[int | None, typer.Option(help="Only the last N entries.", metavar="N", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Print the entries: number, time, event, facts."""
    from fivefold.records import audit

    entries = [entry for entry in audit.entries(file) if not event or entry.event == event]
    entries = entries[-last:] if last else entries
    if as_json:
        import json
        from dataclasses import asdict

        for entry in entries:
            typer.echo(json.dumps(asdict(entry), sort_keys=True, ensure_ascii=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "time", "event", "facts", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.columns[0].justify = "right"
    for entry in entries:
        facts = ", ".join(f"{name} {_short(value)}" for name, value in entry.facts.items())
        time = entry.time[:19].replace("T", " ")
        table.add_row(str(entry.seq), Text(time, no_wrap=True), Text(entry.event, style="bold"), Text(facts))
    Console(highlight=False).print(table)


def _verified(file: Path, key: str, others: list[Path] | None) -> tuple[Report, Compared | None]:
    from fivefold.auth.keys import public_from_hex
    from fivefold.records import audit, witness

    public = public_from_hex(key) if key else None
    if not others:
        return audit.verify(file, public), None
    compared = witness.against(file, others, public)
    return compared.report, compared


def _print(file: Path, report: Report, key_given: bool, compared: Compared | None) -> None:
    from rich.console import Console
    from rich.text import Text

    from fivefold.auth.keys import fingerprint

    console = Console(highlight=False, soft_wrap=True)
    word = "entry" if report.entries == 1 else "entries"
    console.print(Text.assemble(("✓ ", "bold green"), f"{file} is whole: {report.entries} {word} of {report.owner}"))
    console.print(f"  from {_time(report.first)} to {_time(report.last)}")
    console.print(f"  head {report.head}")
    if report.keys:
        signer = fingerprint(bytes.fromhex(report.keys[-1]))
        more = "" if key_given else ": compare it with the owner's, or give --key"
        console.print(f"  signed by the key with fingerprint {signer}{more}")
    else:
        console.print("  not signed: whoever can write the file could have written all of it anew")
    if compared is None:
        console.print(
            "  compared with the head beside it; what others hold (--against) also shows a log put back or written anew"
        )
    else:
        held = ", ".join(f"{n} of {who}" for who, n in compared.heads.items())
        console.print(f"  it holds every head that others witnessed: {held}")
        after = report.entries - compared.last
        console.print(f"  its first {compared.last} lines cannot have been changed since; {after} came after the last head")
    if not report.closed:
        console.print("  it has no closing entry: the run goes on, was interrupted, or this is a site's log")
    if report.beyond_head:
        console.print(f"  {report.beyond_head} signed entry follows the head, as a crash between the two leaves it")


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _time(text: str) -> str:
    return f"{text[:19].replace('T', ' ')} UTC"
