"""Safe outputs: who asks for a release, who decides, and what their words come to.

Everything is a signed statement in one chain (`statements.py`): requests by the lead, words by output checkers, releases. A
word is about one *proposal* by its digest: what exactly would be released, in which form. Deny by default: a request may be
released once so many of the study's checkers agree on one proposal as the study asks, and at least one own checker of every
site that has one; one refusal of any of them refuses it. Nobody checks who leads the study, or operates its coordinator or a
node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from fivefold.auth.keys import public_of
from fivefold.disclosure.report import Finding, Report
from fivefold.errors import NotApproved, OutputRequestInvalid
from fivefold.governance.output_forms import FORMS, Form
from fivefold.governance.statements import Statement, read_chain, write
from fivefold.study.definition import Study

Choice = Literal["release", "changes", "refuse", "exception"]
State = Literal["waiting", "may be released", "changes asked", "refused", "released", "recalled"]
KINDS = ("table", "survival", "regression", "model", "other")
REQUEST, WORD, RELEASE, RECALL = "output_request", "output_decision", "output_release", "output_recall"


@dataclass(frozen=True)
class Checker:
    """Somebody who may decide. `site` is the site whose own checker this is; empty for those whom the study names."""

    name: str
    organisation: str
    key: str
    site: str = ""


@dataclass(frozen=True)
class Request:
    """What is to be released, and why. It holds no number: who asks has not seen any."""

    number: int
    analyses: tuple[str, ...]
    what: str
    population: str
    variables: tuple[str, ...]
    purpose: str
    kind: str
    requester: str
    at: str
    identity: str

    def age(self, now: datetime) -> int:
        """Whole days since it was asked."""
        return max(0, (now - datetime.fromisoformat(self.at)).days)


@dataclass(frozen=True)
class Word:
    """What one checker said of one request."""

    checker: Checker
    choice: Choice
    form: Form
    reason: str
    proposal: str
    at: str


@dataclass(frozen=True)
class Standing:
    """Where a request stands. `open` says in sentences what is still missing; `agreed` is the proposal on which enough
    agree."""

    request: Request
    words: tuple[Word, ...]
    state: State
    open: tuple[str, ...]
    agreed: tuple[str, Form] | None = None


def checkers_of(study: Study, own: Mapping[str, Sequence[Checker]]) -> tuple[Checker, ...]:
    """Everybody who may decide: those whom the study names, and each site's own."""
    named = [Checker(c.name, c.organisation, c.public_key) for c in study.outputs.checkers]
    return (*named, *(Checker(c.name, c.organisation, c.key, site) for site, cs in own.items() for c in cs))


def ask(
    chain: Path, study: Study, private: bytes, *, analyses: Sequence[str], what: str, purpose: str, kind: str = "",
    now: datetime | None = None,
) -> Request:  # fmt: skip
    """Ask for a release, signed by the study's lead. Raises `NotApproved` (another key), `OutputRequestInvalid`."""
    known = [a.name for a in study.analyses]
    unknown = [n for n in analyses if n not in known]
    if unknown or not analyses:
        raise OutputRequestInvalid(
            f"the study has no analysis {unknown[0]!r}" if unknown else "no analysis is asked for",
            help=f"Choose among {', '.join(known)}.",
        )
    if not purpose.strip():
        raise OutputRequestInvalid("the request names no purpose", help="Say with --purpose what the output is for.")
    if public_of(private).hex() != study.lead.public_key:
        raise NotApproved(
            f"only the lead, {study.lead.name}, asks for outputs of this study",
            rule="requester",
            help="Sign with the lead's key.",
        )
    from fivefold.study.envelope import reads

    chosen = [a for a in study.analyses if a.name in analyses]
    kinds = {"statistics": "table", "kaplan_meier": "survival", "cox": "regression", "glm": "regression"}
    classes = [kinds.get(a.method, "model" if "model" in a.options else "other") for a in chosen]
    facts = {
        "request": 1 + sum(s.kind == REQUEST for s in read_chain(chain)),
        "analyses": [a.name for a in chosen],
        "what": what.strip() or "; ".join(study.outputs.planned) or ", ".join(a.name for a in chosen),
        "population": "; ".join([*study.cohort.include, *(f"not {e}" for e in study.cohort.exclude)]) or "all persons",
        "variables": list(dict.fromkeys(v for a in chosen for v in reads(a))),
        "purpose": purpose.strip(),
        "class": kind or ", ".join(dict.fromkeys(classes)),
        "requester": study.lead.name,
        "at": _time(now),
    }
    return _request(write(chain, REQUEST, facts, private))


def decide(
    chain: Path, study: Study, checkers: Sequence[Checker], operators: Sequence[str], private: bytes, *, request: int,
    choice: Choice, form: Form, reason: str, proposal: str, report: Report, now: datetime | None = None,
) -> Word:  # fmt: skip
    """One checker's word, signed. `operators`: public keys (hex) of coordinator and nodes. `report` is that of the proposal.

    Raises `NotApproved`, whose rule is one of `checker_unknown`, `lead_cannot_check`, `operator_cannot_check`,
    `output_binding`, `output_checks_failed`, `reason_missing`; `OutputRequestInvalid` for a request that is not open.
    """
    who = may_check(study, checkers, operators, public_of(private).hex())
    standing = standing_of(chain, study, checkers, request)
    if standing.state in ("released", "recalled", "refused", "changes asked"):
        raise OutputRequestInvalid(
            f"request {request} is closed: {standing.state}", help="The lead asks anew with `fivefold outputs request`."
        )
    if choice not in get_args(Choice) or form not in FORMS:
        raise OutputRequestInvalid(f"{choice!r} in form {form!r} is no decision", help="See `fivefold outputs decide --help`.")
    if choice != "release" and not reason.strip():
        raise NotApproved(
            f"a decision of {choice!r} needs a written reason", rule="reason_missing", help="Give it with --reason."
        )
    if choice in ("release", "exception"):
        _enforce(choice, report.status, report.binding)
    facts = {
        "request": request,
        "of": standing.request.identity,
        "choice": choice,
        "form": form,
        "reason": reason.strip(),
        "proposal": proposal,
        "checks": report.status,
        "checker": who.name,
        "site": who.site,
        "at": _time(now),
    }
    return _word(write(chain, WORD, facts, private), who)


def may_check(study: Study, checkers: Sequence[Checker], operators: Sequence[str], key: str) -> Checker:
    """The checker of a key (hex). Raises `NotApproved` with the rule."""
    if key == study.lead.public_key:
        raise NotApproved(
            "the lead cannot check the study's own outputs", rule="lead_cannot_check", help="An output checker decides."
        )
    if key in {*operators, *(s.public_key for s in study.sites)}:
        raise NotApproved(
            "the key of a coordinator or a node cannot check outputs",
            rule="operator_cannot_check",
            help="An output checker decides.",
        )
    found = next((c for c in checkers if c.key == key), None)
    if found is None or found.name.casefold() == study.lead.name.casefold():
        raise NotApproved(
            "this key belongs to no output checker of the study or of a site", rule="checker_unknown",
            help="The study names its checkers under `outputs: checkers`; a site names its own when it approves.",
        )  # fmt: skip
    return found


def _enforce(choice: Choice, status: str, binding: tuple[Finding, ...]) -> None:
    if binding:
        raise NotApproved(
            f"this cannot be released: {binding[0].words}", rule="output_binding",
            help="Release with suppression or rounding, or ask for changes. No exception is possible.",
        )  # fmt: skip
    if choice == "release" and status == "fail":
        raise NotApproved(
            "the automatic checks fail", rule="output_checks_failed",
            help="Release with --form suppressed or rounded, or as an exception with a written reason.",
        )  # fmt: skip


def standing_of(chain: Path, study: Study, checkers: Sequence[Checker], number: int) -> Standing:
    """Where one request stands. Raises `OutputRequestInvalid` where there is none of this number."""
    found = next((s for s in standings(chain, study, checkers) if s.request.number == number), None)
    if found is None:
        raise OutputRequestInvalid(f"there is no request {number}", help="`fivefold outputs list RUN` shows all requests.")
    return found


def standings(chain: Path, study: Study, checkers: Sequence[Checker]) -> tuple[Standing, ...]:
    """Every request with what was said of it. Words of others than checkers count for nothing. Raises `StatementInvalid`."""
    said = read_chain(chain)
    requests = [_request(s) for s in said if s.kind == REQUEST and s.signers == (study.lead.public_key,)]
    released: dict[int, State] = {int(s.facts["request"]): "released" for s in said if s.kind == RELEASE}
    back = {int(s.facts["request"]): f"recalled by {s.facts['by']}: {s.facts['reason']}" for s in said if s.kind == RECALL}
    released |= dict.fromkeys(back.keys() & released.keys(), "recalled")
    by_key = {c.key: c for c in reversed(checkers)}
    words: dict[int, list[Word]] = {}
    for s in said:
        if s.kind == WORD and s.signers[0] in by_key:
            words.setdefault(int(s.facts["request"]), []).append(_word(s, by_key[s.signers[0]]))
    return tuple(
        Standing(
            r,
            tuple({w.checker.key: w for w in words.get(r.number, ())}.values()),
            out,
            (back.get(r.number, ""),) * (r.number in back),
        )
        if (out := released.get(r.number)) is not None
        else _standing(r, words.get(r.number, ()), study, checkers)
        for r in requests
    )


def record_release(
    chain: Path,
    private: bytes,
    *,
    request: int,
    proposal: str,
    form: Form,
    files: Mapping[str, str],
    now: datetime | None = None,
) -> Statement:
    """The coordinator's signed note of what was released: every file with its SHA-256."""
    facts = {"request": request, "proposal": proposal, "form": form, "files": dict(files), "at": _time(now)}
    return write(chain, RELEASE, facts, private)


def _standing(request: Request, words: Sequence[Word], study: Study, checkers: Sequence[Checker]) -> Standing:
    latest = {w.checker.key: w for w in words}  # a checker may change their word while the request is open
    final = tuple(latest.values())
    against = next((w for w in final if w.choice == "refuse"), None)
    if against is not None:
        veto = f", the own checker of {against.checker.site}" if against.checker.site else ""
        return Standing(request, final, "refused", (f"refused by {against.checker.name}{veto}: {against.reason}",))
    wanting = next((w for w in final if w.choice == "changes"), None)
    if wanting is not None:
        return Standing(request, final, "changes asked", (f"{wanting.checker.name} asks for changes: {wanting.reason}",))
    sites = tuple(dict.fromkeys(c.site for c in checkers if c.site))
    best: tuple[tuple[str, ...], tuple[str, Form] | None] = ((), None)
    for proposal in dict.fromkeys((w.proposal, w.form) for w in final) or [None]:
        agree = [w.checker for w in final if proposal is not None and (w.proposal, w.form) == proposal]
        named = len([c for c in agree if not c.site])
        open_now = []
        if not study.outputs.checkers:
            open_now.append("the study names no output checkers, so nothing can be released")
        elif named < study.outputs.checks:
            open_now.append(f"{study.outputs.checks - named} more of the study's checkers must agree on the same form")
        open_now += [f"an own checker of {s} has to agree" for s in sites if s not in {c.site for c in agree}]
        if not open_now:
            return Standing(request, final, "may be released", (), proposal)
        if not best[0] or len(open_now) < len(best[0]):
            best = (tuple(open_now), None)
    return Standing(request, final, "waiting", best[0])


def _request(s: Statement) -> Request:
    f: Mapping[str, Any] = s.facts
    return Request(
        int(f["request"]), tuple(f["analyses"]), f["what"], f["population"], tuple(f["variables"]), f["purpose"], f["class"],
        f["requester"], f["at"], s.digest,
    )  # fmt: skip


def _word(s: Statement, who: Checker) -> Word:
    f = s.facts
    return Word(who, f["choice"], f["form"], f["reason"], f["proposal"], f["at"])


def _time(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
