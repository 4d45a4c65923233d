"""`ro-crate-preview.html`: a page that tells a person what was asked, of whom, how, and what came out.

One file without scripts or outside resources; the figures beside it are shown by relative links. Every text is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fivefold.records.counts import counts_line
from fivefold.records.provenance import AnalysisRecord, RunRecord

MAX_ROWS = 40
LONG = 16

STYLE = """
:root { color-scheme: light dark;
  --ink: #1a1a1a; --soft: #5c6570; --line: #dfe3e8; --back: #fff; --card: #f6f8fa; --blue: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a4adb8; --line: #3a4048; --back: #16191d; --card: #1f242a; --blue: #62b5e5 }
  figure img { background: #fff; border-radius: 6px }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 58rem; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
p { margin: .4rem 0 .8rem }
a { color: var(--blue) }
.question { font-size: 1.15rem; color: var(--soft); margin-bottom: 1.4rem }
.soft, figcaption, caption, small { color: var(--soft) }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-size: .85rem; border: 1px solid currentColor }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.figures div { background: var(--card); border-radius: 8px; padding: .7rem .9rem }
.figures dt { font-size: .8rem; color: var(--soft) }
.figures dd { margin: 0; font-weight: 600; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; margin: .4rem 0 .2rem; font-variant-numeric: tabular-nums }
caption { text-align: left; white-space: nowrap; font-weight: 600; color: var(--ink); padding-bottom: .3rem }
th, td { padding: .28rem .9rem .28rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 600; font-size: .85rem }
td.n, th.n { text-align: right }
figure { margin: 1.2rem 0 }
figure img { max-width: 100%; height: auto; padding: .3rem }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }
details { margin: .6rem 0 } summary { cursor: pointer; color: var(--blue) }
@media print { body { max-width: none; padding: 0 } details > * { display: block } }
"""


def preview(folder: Path, record: RunRecord) -> str:
    """The page. Results are read from the folder's result.json, if it is there."""
    results = _results(folder)
    parts = [
        _head(record),
        _sites(record),
        *(_analysis(folder, record, analysis, results.get(analysis.name)) for analysis in record.analyses),
        _protection(record),
        _provenance(record),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(record.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _head(record: RunRecord) -> str:
    lead = escape(record.lead.name)
    if record.lead.orcid:
        lead = f'<a href="https://orcid.org/{quote(record.lead.orcid)}">{lead}</a>'
    state = {"completed": "Completed", "failed": "Failed", "stopped": "Stopped before its end"}[record.status]
    why = f" <small>{escape(record.error)}</small>" if record.error else ""
    rounds = sum(len(a.rounds) for a in record.analyses)
    facts = {
        "Sites": str(len(record.sites)),
        "Analyses": str(len(record.analyses)),
        "Rounds": str(rounds),
        "Started (UTC)": _time(record.started),
        "Ended (UTC)": _time(record.ended),
    }
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    played = (
        "<p>This run is a rehearsal: every site was played on one machine.</p>"
        if record.rehearsal
        else f"<p>The sites took part over the {escape(record.engine)} engine.</p>"
    )
    return (
        f'<header><h1>{escape(record.title)}</h1>\n<p class="question">{escape(record.question)}</p>\n'
        f'<p><span class="badge">{state}</span>{why} &nbsp; Asked by {lead}, {escape(record.lead.organisation)}.</p>\n'
        f'<dl class="figures">{cards}</dl>\n{played}</header>'
    )


def _sites(record: RunRecord) -> str:
    rows = []
    for site in record.sites:
        answered, dropped = record.rounds_of(site.name)
        rows.append([site.name, site.organisation or "–", str(answered), str(dropped) if dropped else "none"])
    table = _table("", ["site", "institution", "rounds answered", "rounds missed"], rows, numeric={2, 3})
    return (
        "<section><h2>Who took part</h2>\n<p>Each site kept its records. What left it were sums under masks that cancel only "
        f"in the total over all sites that answered.</p>\n{table}</section>"
    )


def _analysis(folder: Path, record: RunRecord, analysis: AnalysisRecord, result: Mapping[str, Any] | None) -> str:
    parts = [f"<section><h2>{escape(analysis.name)}</h2>"]
    said = escape(analysis.title or analysis.method) + (
        f": <code>{escape(analysis.formula)}</code>" if analysis.formula else ""
    )
    parts.append(f"<p>{said}</p>")
    if result is not None:
        counts = counts_line(result["facts"], result["sites"], result["dropped"], named=True)
        parts.append(f'<p class="soft">{escape(counts)}</p>')
        parts += [f'<p class="soft">{escape(str(note))}</p>' for note in result.get("notes", ())]
        parts += [_result_table(t) for t in result.get("tables", ()) if len(t["rows"]) <= LONG]
    for path in analysis.files:
        if path.endswith(".svg") and (folder / path).is_file():
            title = _figure_title(path, result) or analysis.name
            parts.append(
                f'<figure><img src="{quote(path)}" alt="{escape(title)}"><figcaption>{escape(title)}, as '
                f'<a href="{quote(path)}">SVG</a> and <a href="{quote(path[:-4])}.png">PNG</a></figcaption></figure>'
            )
    parts += [_result_table(t) for t in (result or {}).get("tables", ()) if len(t["rows"]) > LONG]
    tables = [f'<a href="{quote(p)}">{escape(Path(p).name)}</a>' for p in analysis.files if p.endswith(".csv")]
    if tables:
        parts.append(f"<p>Tables in full precision: {', '.join(tables)}.</p>")
    parts.append(_rounds(analysis))
    if analysis.paper:
        parts.append(f"<p><small>Method: {escape(analysis.paper)}</small></p>")
    return "\n".join(parts) + "</section>"


def _rounds(analysis: AnalysisRecord) -> str:
    rows = [
        [str(r.number), ", ".join(r.questions), ", ".join(r.answered), ", ".join(r.dropped) or "none"] for r in analysis.rounds
    ]
    table = _table("", ["round", "question", "answered", "dropped"], rows, numeric={0})
    word = "round" if len(rows) == 1 else "rounds"
    return f"<details><summary>{len(rows)} {word}: what was asked, who answered</summary>{table}</details>" if rows else ""


def _result_table(table: Mapping[str, Any]) -> str:
    units = table.get("units", {})
    head = [name.replace("_", " ") + (f" ({units[name]})" if name in units else "") for name in table["columns"]]
    shown = table["rows"][:MAX_ROWS]
    columns = [_column([row[i] for row in shown]) for i in range(len(head))]
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    numeric = {i for i in range(len(head)) if not any(isinstance(row[i], str) for row in table["rows"])}
    notes = list(table.get("notes", ()))
    if len(table["rows"]) > MAX_ROWS:
        notes.append(f"The first {MAX_ROWS} of {len(table['rows'])} rows.")
    if any(None in row for row in table["rows"]):
        notes.append("A dot stands for a value that was withheld (fewer persons than the minimum) or is undefined.")
    text = "".join(f'<p class="soft"><small>{escape(n)}</small></p>' for n in notes)
    if len(table["rows"]) > LONG:
        summary = f"{escape(table['title'])}: {len(table['rows'])} rows"
        return f"<details><summary>{summary}</summary>{_table('', head, rows, numeric)}{text}</details>"
    return _table(table["title"], head, rows, numeric) + text


def _protection(record: RunRecord) -> str:
    rows = [[name.replace("_", " "), "–" if value is None else str(value)] for name, value in record.privacy.items()]
    if record.ethics:
        rows.append(["ethics reference", record.ethics])
    if record.purpose:
        rows.append(["purpose", record.purpose])
    return (
        "<section><h2>How persons were protected</h2>\n"
        "<p>Settings of the signed study; each site's own policy may be stricter.</p>\n"
        + _table("", ["setting", "value"], rows)
        + "</section>"
    )


def _provenance(record: RunRecord) -> str:
    digests = [
        ["study", record.study_file, record.study_digest],
        ["dictionary", f"{record.dictionary} {record.dictionary_version}".strip(), record.dictionary_digest],
    ]
    software = [[name, version] for name, version in record.software.items()]
    return (
        "<section><h2>How to check this</h2>\n"
        "<p><code>fivefold audit verify audit.jsonl</code> shows whether an entry was changed, removed, moved or cut off; "
        "<code>fivefold crate validate .</code> compares every file with the digest in "
        '<a href="ro-crate-metadata.json">ro-crate-metadata.json</a>.</p>\n'
        + _table("SHA-256", ["what", "name", "digest"], digests, code={2})
        + f"<p>Run <code>{escape(record.run)}</code>, seed {record.seed}, licence {escape(record.licence)}.</p>\n"
        + f"<details><summary>Software</summary>{_table('', ['package', 'version'], software)}</details></section>"
    )


def _table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: set[int] | frozenset[int] = frozenset(),
    code: set[int] | frozenset[int] = frozenset(),
) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        out = ""
        for i, cell in enumerate(cells):
            text = f"<code>{escape(cell)}</code>" if i in code and tag == "td" else escape(cell)
            out += f"<{tag}{' class=n' if i in numeric else ''}>{text}</{tag}>"
        return f"<tr>{out}</tr>"

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "\n".join(row(cells, "td") for cells in rows)
    return f'<div class="wide"><table>{title}<thead>{row(head, "th")}</thead><tbody>\n{body}\n</tbody></table></div>\n'


def _results(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "result.json").read_bytes())
    except OSError:  # a run that failed has none
        return {}
    return {a["name"]: a for a in value["analyses"]}


def _figure_title(path: str, result: Mapping[str, Any] | None) -> str:
    number = path.rsplit(".", 2)[1]
    figures = (result or {}).get("figures", ())
    return str(figures[int(number) - 1]["title"]) if number.isdigit() and 0 < int(number) <= len(figures) else ""


def _column(values: Sequence[Any]) -> list[str]:
    """Cells of one column, so that the points of its numbers stand under each other."""
    fractions = any(isinstance(v, float) and not v.is_integer() for v in values)
    return [_cell(v, fractions) for v in values]


def _cell(value: Any, fractions: bool) -> str:
    if value is None:
        return "·"
    if isinstance(value, dict):
        return "∞" if value.get("float") == "inf" else "−∞"
    if isinstance(value, float):
        if not fractions and abs(value) < 1e9:
            return f"{value:.0f}".replace("-", "−")
        tiny = value != 0 and (abs(value) < 5e-5 or abs(value) >= 1e6)
        return f"{value:.3g}" if tiny else f"{value:.4f}".replace("-", "−")
    return str(value)


def _time(text: str) -> str:
    return text[:19].replace("T", " ")
