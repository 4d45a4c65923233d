"""A study, an estimate and a promise in plain words, for a terminal or a file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fivefold.auth.keys import fingerprint
from fivefold.study.consistency import placeholder, thresholds
from fivefold.study.definition import Analysis, Study
from fivefold.study.dictionary import Variable
from fivefold.study.model_code import code_of

if TYPE_CHECKING:
    from fivefold.governance.study_estimate import Estimate
    from fivefold.governance.threats import Threat

WIDTH = 100


def page(study: Study, digest: str) -> str:
    """The whole study, as a custodian reads it before an approval."""
    out: list[str] = [study.title, "=" * min(len(study.title), WIDTH), *_wrapped(study.question), ""]
    out += _section("Who asks", [f"{study.lead.name}, {study.lead.organisation}", f"key {_key(study.lead.public_key)}"])
    out += _section("Who is asked", _columns((s.name, s.organisation, f"key {_key(s.public_key)}") for s in study.sites))
    out += _section("Which persons", _cohort(study))
    out += _section("What is used, and why", _columns(_why(study)))
    derived = [(d.variable.name, f"= {d.expression}", described(d.variable)) for d in study.derived]
    out += _section("What is computed from it", _columns(derived))
    for analysis in study.analyses:
        out += _section(f"Analysis {analysis.name}", _analysis(analysis))
    envelope = study.envelope
    if envelope.fits:
        out += _section(
            f"What the lead may vary without asking again ({envelope.fits} times)",
            [
                f"methods: {', '.join(envelope.methods)}",
                f"variables: {', '.join(envelope.variables)}",
                *(f"subgroup: {s}" for s in envelope.subgroups),
            ],
        )
    out += _section("What is done about slow sites", [_stragglers(study)])
    out += _section("What protects the persons", promise_lines(study))
    out += _section("What threatens them", _threats(study))
    out += _section("What is to come out", [*study.outputs.planned, f"licence {study.outputs.licence}"])
    out += _section("Who lets it out", _checkers(study))
    out += _section("Under which agreements", _agreements(study))
    out += _section("Dictionary", [f"{study.dictionary.name}, version {study.dictionary.version}"])
    return "\n".join([*out, f"digest {digest}"])


def threats_page(found: Iterable[Threat]) -> str:
    """Threat by threat: ✓ covered, ◐ in part, ✗ open; by what, what is left, what to change."""
    signs, out = {"covered": "✓", "in part": "◐", "open": "✗"}, list[str]()
    for threat in found:
        lines = [f"{threat.who}.", *(f"+ {line}" for line in threat.covered)]
        lines += [f"- open: {line}" for line in threat.open] + [f"> change: {line}" for line in threat.change]
        out += _section(f"{signs[threat.status]} {threat.name} ({threat.status})", lines)
    return "\n".join(out).rstrip()


def promise_lines(study: Study) -> list[str]:
    """What the coordinator can learn, and what the sums withstand."""
    promise = thresholds(study)
    return [
        *promise.sentences(),
        f"Sites needed to unmask (t): {promise.t}. Colluding sites withstood at this threshold: {promise.colluders_tolerated}. "
        f"Drop-outs tolerated in a round: {promise.dropouts_tolerated}.",
        f"No total over fewer than {study.privacy.minimum_persons} persons is shown. {_noise(study)}",
    ]


def _stragglers(study: Study) -> str:
    it = study.stragglers
    if it.policy == "wait":
        return "Each round waits for every site that gives signs of life."
    quorum = it.quorum or thresholds(study).survivors_needed
    if it.policy == "drop":
        return f"A round goes on as soon as {quorum} sites have answered; whoever is later is not in it."
    return f"A round waits {it.deadline:g} s for all sites; then it goes on as soon as {quorum} have answered."


def _threats(study: Study) -> list[str]:
    """A line for each threat, as part of what a custodian approves; the whole is `fivefold study threats`."""
    from fivefold.governance.threats import threats

    return [f"{t.name}: {t.status}" + (f" ({'; '.join(t.open)})" if t.open else "") for t in threats(study)]


def _checkers(study: Study) -> list[str]:
    """Whom a site's approval accepts as output checkers."""
    it = study.outputs
    if not it.checkers:
        return ["The study names no output checker; a site can name one of its own."]
    named = _columns((c.name, c.organisation, f"key {_key(c.public_key)}") for c in it.checkers)
    return [f"{it.checks} of these {len(it.checkers)}, and whom a site adds:", *named]


def _agreements(study: Study) -> list[str]:
    it = study.agreements
    more = [("public benefit", it.public_benefit), ("data-sharing agreement, SHA-256", it.data_sharing)]
    said = [("ethics", it.ethics), ("purpose", it.purpose), *(m for m in more if m[1]), ("last day", it.expires)]
    return [f"{what}: {text}" for what, text in said]


def _noise(study: Study) -> str:
    from fivefold.privacy.dp.words import short

    private = study.privacy.differential_privacy
    if private is None:
        return "No noise is added: sums are exact."
    return (
        f"Every answer carries noise, and all together cost at most {short(private.unit, private.epsilon, private.delta)}; "
        f"up to {private.dropouts} sites may be missing from a sum."
    )


def estimate_page(bounded: Estimate) -> str:
    """Rounds, traffic, time, ε, drop-outs and colluders."""
    rows = [("analysis", "method", "rounds", "numbers a round")]
    rows += [(c.name, c.method, str(c.rounds), f"{c.numbers_per_round:,}") for c in bounded.analyses]
    rows += [("all", "", str(bounded.rounds), "")]
    out = _section("At most", [*_columns(rows), *(line for c in bounded.analyses for line in c.remarks)])
    out += _section(
        "Traffic",
        _columns(
            [
                ("sent by each site", _bytes(bounded.sent_by_site)),
                ("received by each site", _bytes(bounded.received_by_site)),
                (f"all {bounded.sites} sites together", _bytes(bounded.total_bytes)),
            ]
        ),
    )
    waiting = f"{bounded.trip_seconds:g} s a trip between site and coordinator, without the sites' own computing"
    out += _section("Time", [f"{_seconds(bounded.seconds)}, at {waiting}"])
    out += _section("Privacy budget (ε)", _budget(bounded))
    out += _section(
        "Withstood",
        [
            f"sites needed to unmask a sum: {bounded.threshold} of {bounded.sites}",
            f"drop-outs in a round: {bounded.dropouts}",
            f"sites that collude with the coordinator: {bounded.colluders}",
        ],
    )
    return "\n".join(out).rstrip()


def _budget(bounded: Estimate) -> list[str]:
    from fivefold.governance.study_estimate import what_if
    from fivefold.privacy.dp.words import landmarks, short

    if bounded.noise is None or bounded.epsilon is None:
        return ["none is spent or guaranteed: sums are exact, without differential privacy"]
    said, table = bounded.noise.said, what_if(bounded)
    head = (
        f"{bounded.rounds} rounds with a noise multiplier of {said.noise_multiplier:g} cost "
        f"{short(said.unit, bounded.epsilon, said.delta)}; the cap is ε = {said.epsilon:g}",
        f"the least noise_multiplier for this cap: {bounded.noise.least_multiplier:g}",
        *landmarks(),
    )
    if table is None:  # sites take noisy steps of their own
        return list(head)
    asked = list(dict.fromkeys(row[0] for row in table.rows))
    cells = {(row[0], row[1]): row[2] for row in table.rows}
    rows = [("noise multiplier", *(f"{n} rounds" for n in asked))]
    rows += [(f"{z:g}", *(f"{cells[n, z]:.3g}" for n in asked)) for z in dict.fromkeys(row[1] for row in table.rows)]
    out = [*head, "what if (ε by rounds and noise multiplier):"]
    return out + ["  " + line for line in _columns(rows)]


def described(variable: Variable) -> str:
    """Type, unit, range and codes in a few words."""
    parts: list[str] = [variable.type]
    if variable.minimum is not None and variable.maximum is not None and variable.type != "date":
        parts.append(f"{variable.minimum:g} to {variable.maximum:g}")
    if variable.unit:
        parts.append(variable.unit)
    if variable.codes:
        parts.append(", ".join(f"{c} {label}" for c, label in variable.codes.items()))
    return " ".join(parts)


def _cohort(study: Study) -> list[str]:
    out = [f"include: {c}" for c in study.cohort.include] + [f"exclude: {c}" for c in study.cohort.exclude]
    if study.cohort.index_date:
        out.append(f"time counts from {study.cohort.index_date}")
    return [*(out or ["everyone whom the sites hold"]), f"persons are told apart by {study.person}"]


def _why(study: Study) -> Iterator[tuple[str, ...]]:
    for name, why in study.variables.items():
        variable = study.dictionary[name]
        yield name, f"{variable.label} ({described(variable)})", why


def _analysis(analysis: Analysis) -> list[str]:
    out = [f"method: {analysis.method}"]
    out += [f"formula: {analysis.formula}"] if analysis.formula else []
    out += [f"variables: {', '.join(analysis.variables)}"] if analysis.variables else []
    out += [f"subgroup: {analysis.subgroup}"] if analysis.subgroup else []
    out += [f"sites: {', '.join(analysis.sites)} alone"] if analysis.sites else []
    options = dict(analysis.options)
    if code_of(analysis) is not None:
        options["model"] = {k: v for k, v in options["model"].items() if k != "source"}
    out += [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in options.items()]
    own = code_of(analysis)
    return (
        out if own is None else [*out, f"code of its own, {len(own[1].splitlines())} lines; `fivefold site approve` shows it"]
    )


def _key(text: str) -> str:
    return "still missing" if placeholder(text) else fingerprint(bytes.fromhex(text))


def _section(title: str, body: Iterable[str]) -> list[str]:
    lines = [wrapped for line in body for wrapped in _wrapped(line, "  ")]
    return [title, *lines, ""] if lines else []


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", replace_whitespace=False) or []


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Aligned on all columns but the last."""
    table = list(rows)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]) - 1)] if table else []
    return ["  ".join([*(row[i].ljust(min(w, 40)) for i, w in enumerate(widths)), row[-1]]).rstrip() for row in table]


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _seconds(count: float) -> str:
    if count < 120:
        return f"about {count:.0f} s"
    return f"about {count / 60:.0f} min" if count < 7200 else f"about {count / 3600:.1f} h"
