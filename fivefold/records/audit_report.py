"""An audit log for people and for other programs: verified first, then sorted into what an auditor asks for.

The chapters are decided by event, and for refusals by code and rule: a forged signature, an unknown sender and a foreign
message are attempts to be somebody else, wherever they were met.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from fivefold.auth.keys import fingerprint
from fivefold.records.audit import Report, entries
from fivefold.records.audit_entries import CLOSED, KEY_CHANGED, OPENED, REPAIRED, Entry
from fivefold.records.preview import STYLE
from fivefold.records.witness import HEADS, Compared

CHAPTERS: Mapping[str, str] = {
    "authentication": "Attempts with a wrong or unknown key, and messages that are not for a site of Fivefold.",
    "refusals": "What was asked and not done, and by which rule.",
    "errors": "Faults, runs that stopped, repairs, and incidents.",
    "outputs": "Requests, decisions, releases and recalls.",
    "agreements": "Approvals, statements, policies, keys and withdrawals.",
    "training": "The run's own events: questions, answers, survivors, aggregates.",
    "log": "The log about itself: its beginning and end, and the heads of other logs that it was shown.",
}
"""Chapter → what stands in it, in the order of a report."""
WRONG_KEY = frozenset({"SignatureWrong", "KeyProblem", "StatementInvalid"})
WRONG_SENDER = frozenset(
    {"signature", "unknown_peer", "wrong_sender", "own_key", "own_key_altered", "log_head", "study_digest"}
)
TRIPS = frozenset(
    {
        "open",
        "enrol",
        "share",
        "ask",
        "survivors",
        "unmask",
        "close",
        "aggregate",
        "results",
        "variation",
        "answer",
        "answering",
        "snapshot",
    }
)
LONG = 160


def chapter(entry: Entry) -> str:
    """Where an entry belongs."""
    event, code, rule = entry.event, str(entry.facts.get("code", "")), str(entry.facts.get("rule", ""))
    if event in ("run stopped", REPAIRED, "incident") or rule.startswith("internal_") or "contradicts" in entry.facts:
        return "errors"
    if event == "connection refused" or "foreign" in event or code in WRONG_KEY or rule in WRONG_SENDER:
        return "authentication"
    if event in (OPENED, CLOSED, KEY_CHANGED, HEADS):
        return "log"
    if "refus" in event or entry.facts.get("refused"):
        return "refusals"
    if event.startswith(("output", "release", "recall")):
        return "outputs"
    if event in TRIPS or event.startswith(("run ", "resumed", "variation", "snapshot")):
        return "training"
    return "agreements"


def exported(path: Path) -> Iterator[str]:
    """A log as JSON lines for other programs, each entry with its chapter. Verify it first."""
    for entry in entries(path):
        plain = {
            "owner": entry.owner, "seq": entry.seq, "time": entry.time, "chapter": chapter(entry), "event": entry.event,
            "facts": entry.facts, "hash": entry.hash,
        }  # fmt: skip
        yield json.dumps(plain, ensure_ascii=False, sort_keys=True)


def verified(report: Report, compared: Compared | None) -> list[str]:
    """What was verified, in sentences."""
    said = [f"{report.entries} entries of {report.owner}, from {moment(report.first)} to {moment(report.last)}."]
    if report.keys:
        said.append(f"Every entry is signed; the key has the fingerprint {fingerprint(bytes.fromhex(report.keys[-1]))}.")
    else:
        said.append("The log is not signed: whoever can write the file could have written all of it anew.")
    if compared is None:
        said.append("It was compared with its own head alone, not with what other parties witnessed.")
    else:
        held = ", ".join(f"{n} of {who}" for who, n in compared.heads.items())
        said.append(f"It holds every head that others witnessed ({held}); its first {compared.last} lines are proven by them.")
    said.append(f"Its end is the entry {report.head}.")
    return said


def html(path: Path, report: Report, compared: Compared | None = None) -> str:
    """The report as one page without scripts; every text is escaped."""
    title = f"Audit log of {report.owner}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in verified(report, compared)),
    ]
    for name, found in _sorted(path):
        parts.append(f"<h2>{name.capitalize()} ({len(found)})</h2><p>{escape(CHAPTERS[name])}</p>")
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(e))}</tr>" for e in found)
        head = "<tr><th>line</th><th>when (UTC)</th><th>what</th><th>facts</th></tr>"
        parts.append(f"<table>{head}{rows}</table>" if found else "<p>None.</p>")
    return "\n".join([*parts, "</body></html>\n"])


def markdown(path: Path, report: Report, compared: Compared | None = None) -> str:
    """The report as Markdown."""
    parts = [f"# Audit log of {_plain(report.owner)}", *(_plain(line) for line in verified(report, compared))]
    for name, found in _sorted(path):
        parts.append(f"## {name.capitalize()} ({len(found)})\n\n{CHAPTERS[name]}")
        rows = [f"| {' | '.join(map(_plain, _cells(e)))} |" for e in found]
        parts.append(
            "\n".join(["| line | when (UTC) | what | facts |", "| --- | --- | --- | --- |", *rows]) if rows else "None."
        )
    return "\n\n".join(parts) + "\n"


def moment(time: str) -> str:
    """A time of an entry, to the second."""
    return time[:19].replace("T", " ")


def _sorted(path: Path) -> Iterable[tuple[str, list[Entry]]]:
    found: dict[str, list[Entry]] = {name: [] for name in CHAPTERS}
    for entry in entries(path):
        found[chapter(entry)].append(entry)
    return found.items()


def _cells(entry: Entry) -> tuple[str, str, str, str]:
    facts = ", ".join(f"{n} {_short(n, v)}" for n, v in entry.facts.items() if n != "salt")
    return str(entry.seq), moment(entry.time), entry.event, facts


def _short(name: str, value: Any) -> str:
    if name == "sites" and isinstance(value, dict):
        return ", ".join(f"{site} (its entry {head[0]})" for site, head in value.items())
    if name == "coordinator" and isinstance(value, list):
        return f"(its entry {value[0]})"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line of a table."""
    out = " ".join(text.split())
    for mark in "\\`*_[]<>|#":
        out = out.replace(mark, f"\\{mark}")
    return out
