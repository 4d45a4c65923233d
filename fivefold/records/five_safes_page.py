"""The evidence pack as one page: the Five Safes in plain words, each with its evidence. An ethics board can read it.

One file without scripts or outside resources, the same style as the run's own preview; it prints well. Every text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fivefold.records.five_safes_record import Package
from fivefold.records.preview import STYLE

EPSILON = (
    "What ε means: whoever sees every answer and thought it even (50 %) that a certain person took part can be at most 73 % "
    "sure afterwards with ε = 1, about 95 % with 3, and nearly certain with 10: then the promise is empty."
)
MORE = """
.safe { background: var(--card); border-radius: 8px; padding: .2rem 1rem .8rem; margin: 1rem 0; break-inside: avoid }
.safe h2 { border: 0; margin-top: .6rem; padding-top: 0 }
.yes::before { content: "✓ "; color: #009e73 } .no::before { content: "✗ "; color: #d55e00 }
.open::before { content: "… "; color: #e69f00 }
@media print { @page { margin: 18mm } .safe { border: 1px solid #ccc } a { color: inherit } }
"""


def page(package: Package) -> str:
    """The page as HTML."""
    study = package.study
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(study.title)}: evidence</title><style>{STYLE}{MORE}</style></head><body>",
        f"<h1>{escape(study.title)}</h1>",
        f'<p class="question">{escape(study.question)}</p>',
        *_summary(package),
        *_projects(package),
        *_people(package),
        *_settings(package),
        *_data(package),
        *_outputs(package),
        *_logs(package),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(package: Package) -> Iterable[str]:
    withdrawn = [s.site for s in package.sites if s.withdrawn]
    if package.recalled:
        yield f'<p class="no"><strong>Recalled:</strong> {escape(package.recalled)}. Do not use it.</p>'
    yield (
        f"<p>{len(package.sites)} sites took part. Each kept its records and handed over sums that only show together with "
        f"those of the others. The run began on {_day(package.started)} and ended on {_day(package.ended)}.</p>"
    )
    if withdrawn:
        yield f'<p class="no">Withdrawn afterwards: {escape(", ".join(withdrawn))}.</p>'


def _projects(package: Package) -> Iterable[str]:
    agreed = package.study.agreements
    yield '<section class="safe"><h2>Safe project: is this use of the data right?</h2>'
    yield _list(
        [
            ("Purpose", agreed.purpose),
            ("Ethics", agreed.ethics),
            ("Agreed until", agreed.expires),
            ("Fingerprint of the study (digest)", package.digest),
        ]
    )
    yield "<p>Any change to the study, its dictionary or its methods changes the fingerprint, and every approval is void.</p>"
    yield _table(
        "Approvals, given by each site alone",
        ("Site", "Custodian", "Given", "Valid until", "For", "State"),
        [
            (
                s.organisation or s.site,
                s.custodian,
                _day(s.approved),
                s.expires,
                ", ".join(s.analyses),
                f"withdrawn on {_day(s.withdrawn)}" if s.withdrawn else "approved",
            )
            for s in package.sites
        ],
    )
    yield from _asked(package, "projects")
    yield "</section>"


def _people(package: Package) -> Iterable[str]:
    lead = package.study.lead
    yield '<section class="safe"><h2>Safe people: who may do what?</h2>'
    yield _list(
        [
            ("Asked by", f"{lead.name}, {lead.organisation}" + (f", ORCID {lead.orcid}" if lead.orcid else "")),
            ("The lead's key", lead.public_key),
        ]
    )
    yield _table(
        "Custodians, each with a key of their own",
        ("Site", "Custodian", "Key"),
        [(s.organisation or s.site, s.custodian, f"{s.custodian_key[:16]}…") for s in package.sites],
    )
    if package.disclosure.by:
        yield f"<p>Outputs were checked by {escape(', '.join(package.disclosure.by))}, none of them the lead.</p>"
    yield from _asked(package, "people")
    yield "</section>"


def _settings(package: Package) -> Iterable[str]:
    private = package.study.privacy
    yield '<section class="safe"><h2>Safe settings: where and how was it computed?</h2>'
    adversary = "may try anything" if private.adversary == "active" else "keeps to the protocol"
    yield _list(
        [
            ("Carried by", f"{package.engine}, Fivefold {package.software}"),
            ("Sealed sums (masked)", f"every sum holds at least {private.minimum_sites} sites; the coordinator {adversary}"),
            ("Fewest persons in a total", str(private.minimum_persons)),
        ]
    )
    yield _table(
        "Policies in force, written and signed at the sites",
        ("Site", "Version", "Fingerprint"),
        [(s.organisation or s.site, str(s.policy_version), f"{s.policy_digest[:16]}…") for s in package.sites],
    )
    yield from _asked(package, "settings")
    yield "</section>"


def _data(package: Package) -> Iterable[str]:
    study = package.study
    yield '<section class="safe"><h2>Safe data: only what the question needs?</h2>'
    yield _table("Variables, and why each is needed", ("Variable", "Why"), list(study.variables.items()))
    rules = [*(f"with {c}" for c in study.cohort.include), *(f"without {c}" for c in study.cohort.exclude)]
    yield f"<p>Persons: {escape('; '.join(rules) or 'all that a site holds')}.</p>"
    yield _table(
        "Frozen data, each named by a keyed fingerprint that only its site can compute",
        ("Site", "Data", "Mapping"),
        [(s.organisation or s.site, _short(s.commitment), _short(s.mapping)) for s in package.sites],
    )
    spent = [(s.organisation or s.site, f"{s.spent:.3g}", f"{s.delta:.0e}") for s in package.sites if s.spent is not None]
    if spent:
        yield _table("Privacy spent on this study (ε)", ("Site", "ε", "at δ"), [(a, b, c) for a, b, c in spent])
        yield f"<p>{escape(EPSILON)}</p>"
    else:
        yield (
            "<p>Privacy spent (ε): none is counted. The study asks for exact sums; they are protected by the number of persons "
            "and sites in each, not by noise.</p>"
        )
    yield from _asked(package, "data")
    yield "</section>"


def _outputs(package: Package) -> Iterable[str]:
    found = package.disclosure
    yield '<section class="safe"><h2>Safe outputs: what left, and who let it?</h2>'
    mark = {"completed": "yes", "failed": "no", "pending": "open"}[found.status]
    yield f'<p class="{mark}">{escape(found.words)}{f" ({_day(found.ended)})" if found.ended else ""}.</p>'
    planned = package.study.outputs.planned
    if planned:
        yield f"<p>Stated at the outset: {escape('; '.join(planned))}.</p>"
    if found.checks:
        yield _table("Every check that was made, and what came of it", ("Of", "Rules and thresholds", "Came to"), found.checks)
    tables = [(p.removeprefix("tables/"),) for p in package.parts if p.startswith("tables/")]
    if tables:
        minimum = package.study.privacy.minimum_persons
        yield _table(f"Tables in this package, under the rule “at least {minimum} persons in a total”", ("Table",), tables)
    yield "</section>"


def _logs(package: Package) -> Iterable[str]:
    yield '<section class="safe"><h2>Evidence: logs that nobody can rewrite alone</h2>'
    yield _table(
        "Heads of the audit logs: the coordinator's of this run, and each site's when it signed",
        ("Whose", "Entries", "Head"),
        [
            (who, str(entries), f"{head[:32]}…")
            for who, entries, head in (
                ("Coordinator", *package.log),
                *((s.organisation or s.site, s.log_entries, s.log_head) for s in package.sites),
            )
        ],
    )
    yield f"<p>Run {escape(package.run)}; a package holds the coordinator's own log, <code>run/audit.jsonl</code>.</p>"
    yield "<p>Check all of it: <code>fivefold crate validate PACKAGE</code>.</p></section>"


def _asked(package: Package, safe: str) -> Iterable[str]:
    """Which rules each site's own policy asked about a Safe, and what they said; nothing where no site told."""
    rows = [
        (s.organisation or s.site, ", ".join(permit), ", ".join(objects) or "none")
        for s in package.sites
        for name, permit, objects in s.safes
        if name == safe
    ]
    if rows:
        yield _table("What each site's own rules said when it signed", ("Site", "Rules that permit", "Rules that object"), rows)


def _list(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v or 'not stated')}</dd></div>" for k, v in pairs)
    return f'<dl class="figures">{rows}</dl>'


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in rows)
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    return f'<div class="wide"><table><caption>{escape(title)}</caption><tr>{top}</tr>{cells}</table></div>'


def _short(tag: str) -> str:
    return f"{tag[:16]}…" if tag else "no longer held"


def _day(time: str) -> str:
    return time[:10]
