"""What a site's policy will say to a study, decision by decision, before anyone waits. No row is read, and nothing is kept.

The questions are those that the study asks of synthetic rows (`data/synthetic.py`), so that each kind is met as it would be in
a run. A policy that does not parse, or is not the text that was signed, denies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from fivefold.algorithms.method import charged
from fivefold.disclosure.rules import screen
from fivefold.errors import FivefoldError
from fivefold.governance import five_safes
from fivefold.governance.policy import FILE, STUDY_RULES, Decision, Policy, decide
from fivefold.governance.safe_settings import Surroundings
from fivefold.governance.study_check import parsed
from fivefold.plugins import method
from fivefold.replay.cursor import Asked, Cursor, Outcome
from fivefold.site.budget import admits, curve_of, ledger_of, spent
from fivefold.site.budget_book import load
from fivefold.site.folder import SiteFolder
from fivefold.site.kept_state import State, computed
from fivefold.study.definition import Study
from fivefold.study.model_code import code_of

ROUNDS = 40
"""Of each analysis so many rounds are played at most; every kind of question has come by then."""
PERSONS = 400
"""Synthetic persons; the kinds of questions do not hang on their number."""


@dataclass(frozen=True)
class Foretold:
    """One decision and what it is about: `policy`, `opening`, a Safe, `analysis NAME`, `question STEP`, `outputs`, `budget`."""

    about: str
    decision: Decision


def foretold(
    site: SiteFolder, study: Study, digest: str, when: datetime, *, around: Surroundings | None = None
) -> Iterator[Foretold]:
    """Every decision that the site's policy would make on the way through a study, in the order of a run."""
    today = when.astimezone(UTC).date()
    try:
        text = Policy.read(site.path / FILE)
    except FivefoldError as error:
        yield Foretold("policy", Decision(False, "policy", 0, f"{FILE} permits nothing: {error.message}"))
        return
    try:
        custody = site.custody(when)
        words = f"version {text.version} of {FILE} is signed and in force"
        yield Foretold("policy", Decision(True, "signature", text.line("version"), words, f"sha256:{text.digest}"))
    except FivefoldError as error:
        yield Foretold("policy", Decision(False, error.rule or "signature", text.line("version"), error.message))
        return
    policy = custody.policy
    objected = [(r, why) for r, check in STUDY_RULES if (why := check(policy, study, today)) is not None]
    for rule, why in objected:
        yield Foretold("opening", Decision(False, rule, policy.line(rule), why))
    if not objected:
        yield Foretold("opening", decide(policy, study, today=today))
    for safe, decisions in five_safes.judge(site.path, custody, study, digest, today, around=around).items():
        yield from (Foretold(five_safes.SAFES[safe].lower(), d) for d in decisions)
    for analysis in study.analyses:
        permit = analysis.method in policy.methods
        words = f"this site {'permits' if permit else 'does not permit'} the method {analysis.method}"
        yield Foretold(f"analysis {analysis.name}", Decision(permit, "methods", policy.line("methods"), words))
    yield from _questions(policy, study)
    yield Foretold("outputs", _outputs(policy, study))
    yield Foretold("budget", _budget(site, policy, study))


def _questions(policy: Policy, study: Study) -> Iterator[Foretold]:
    """Each kind of question once, and the number of rounds at most."""
    most = 0
    for analysis in study.analyses:
        name = f"question of {analysis.name}"
        try:
            most += method(analysis.method).cost(parsed(study, analysis)).rounds
            kinds: dict[tuple[str, ...], Decision] = {}
            for asked in _asked(study, policy.site, analysis.name):
                parts = asked.question if isinstance(asked.question, tuple) else (asked.question,)
                key = tuple(f"{q.step.identity} {' '.join(getattr(q, 'needs', ()))}".strip() for q in parts)
                if key not in kinds:
                    kinds[key] = _question(policy, asked)
            yield from (Foretold(f"question {' + '.join(key)}", decision) for key, decision in kinds.items())
        except FivefoldError as error:
            why = f"its questions cannot be foretold: {error.message}"
            yield Foretold(name, Decision(False, error.rule or error.code, 0, why))
    words = f"at most {most} rounds, and this site answers {policy.max_rounds}"
    yield Foretold("rounds", Decision(most <= policy.max_rounds, "max_rounds", policy.line("max_rounds"), words))


def _question(policy: Policy, asked: Asked) -> Decision:
    from fivefold.governance.policy import decide_question

    for one in asked.question if isinstance(asked.question, tuple) else (asked.question,):
        decision = decide_question(policy, one)
        if not decision.permit:
            return decision
    return decision


def _asked(study: Study, me: str, name: str) -> Iterator[Asked]:
    """The questions of one analysis over synthetic rows; where it runs code of its own, or fails on them, the first alone."""
    from fivefold.data.synthetic import synthetic

    analysis = next(a for a in study.analyses if a.name == name)
    cursor, kept, table = Cursor(study, (analysis,)), dict[str, State](), None
    while cursor.open is not None:
        asked = cursor.open
        yield asked
        if asked.round >= ROUNDS or code_of(analysis) is not None or method(analysis.method).trains:
            return
        table = synthetic(study, me, rows=PERSONS) if table is None else table
        try:
            answer, states = computed(asked, [one.arguments for one in asked.sums], table, kept.get)
            kept |= states
            numbers = {f.name: np.asarray(answer[f.name]) for f in asked.fields}
            totals = screen(numbers, asked.fields, study.privacy.minimum_persons)
            cursor.feed(Outcome(asked.split({n: np.asarray(v) for n, v in totals.items()}), (me,)))
        except FivefoldError:
            return  # synthetic rows may be too few or too odd for a method; what was asked by then stands


def _outputs(policy: Policy, study: Study) -> Decision:
    rule, checkers, checks = "outputs.checkers", study.outputs.checkers, study.outputs.checks
    if not checkers:
        return Decision(False, rule, 0, "the study names no output checker, so nothing of a sealed run could be released")
    words = f"{checks} of {len(checkers)} output checkers must agree, each for themselves"
    return Decision(1 <= checks <= len(checkers), rule, 0, words, ", ".join(c.name for c in checkers))


def _budget(site: SiteFolder, policy: Policy, study: Study) -> Decision:
    private, cap, line = study.privacy.differential_privacy, policy.budget, policy.line("budget")
    book = load(ledger_of(site.state, policy), policy.asset)
    kinds = {e.mechanism == "exact" for entry in book.entries for e in entry.events}
    if policy.mix_exact_and_noisy == "refused" and (private is not None) in kinds:
        rule = "mix_exact_and_noisy"
        return Decision(False, rule, policy.line(rule), "the asset gave answers of the other kind, and this site does not mix")
    if private is None:
        return Decision(True, "budget", line, "exact sums cost no ε; they are protected by persons and sites in each")
    if cap is None:
        return Decision(True, "budget", 0, f"the study may cost ε = {private.epsilon:g}; this site declares no cap")
    epsilon, _ = spent(policy, book)
    words = (
        f"the study may cost ε = {private.epsilon:g} at δ = {private.delta:g}; ε = {epsilon:.3g} of {cap.epsilon:g} is spent"
    )
    event = _whole(study)
    fits = event is None or admits(cap.epsilon, cap.delta, curve_of(book.entries) + event)
    return Decision(fits, "budget", line, words if fits else words + ", so that it would pass the cap before its end")


def _whole(study: Study) -> np.ndarray | None:
    """The divergences of all the study's questions at most."""
    from fivefold.privacy.dp.events import Event, composed, curve

    private = study.privacy.differential_privacy
    assert private is not None
    z = private.noise_multiplier
    shared, own = charged([method(a.method).cost(parsed(study, a)) for a in study.analyses])
    events = [Event("sampled_gaussian", z, n, 0.0, q) for n, q in own]
    events += [Event("discrete_gaussian", z, count=shared)] if shared else []
    return composed(map(curve, events)) if events else None
