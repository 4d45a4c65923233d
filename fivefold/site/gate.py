"""The gate: everything that leaves a site passes it, in this order, each round.

    disclosure checks → clip → round → noise → reserve budget → mask → log (durable) → sign → send

The checks refuse; they never alter a number, and exact sums leave as they are. Each part takes what asks to leave and hands it
on, or raises; the last four parts are given by the node, which holds keys, log and engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.errors import PolicyRefuses, RunError, TooFewPersons
from fivefold.governance.policy import FILE, Policy
from fivefold.privacy.dp.accounting import question_event
from fivefold.privacy.dp.noisy_steps import NoisySteps
from fivefold.protocol.encoding import digest
from fivefold.protocol.questions import PERSONS, WEIGHTS, Array, Field
from fivefold.records.audit import AuditLog
from fivefold.records.journal import Journal, read
from fivefold.replay.compare import described
from fivefold.replay.cursor import Asked
from fivefold.site import budget, noising
from fivefold.study.definition import DifferentialPrivacy, Study
from fivefold.study.table import Table


@dataclass(frozen=True)
class Departure:
    """What asks to leave. `answer` holds an array for each field of the question; `known_persons` is the analysis' own total of
    persons from earlier rounds, where there was one; `vector` and `message` are filled in on the way."""

    study: Study
    study_digest: str
    policy: Policy
    asked: Asked
    table: Table
    answer: Mapping[str, Array]
    state: Path
    """The site's state folder: what was released is kept there."""
    known_persons: int | None = None
    vector: Array | None = None
    message: bytes = b""

    run: str = ""
    data: str = ""
    """The keyed digest of the rows that the study froze here: other rows, other noise."""
    secret: bytes = field(default=b"", repr=False)
    """The site's own secret (32 bytes), from which noise is drawn."""
    log: AuditLog | None = None
    version: int | None = None
    """In a buffer: from which version of the weights the answer was computed."""

    finished: bool = False
    """Whether the step took all its noise from `own_steps`, where it had to."""

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.asked.fields

    @property
    def private(self) -> DifferentialPrivacy | None:
        return self.study.privacy.differential_privacy


Part = Callable[[Departure], Departure]


# ---- disclosure checks ----------------------------------------------------------------------------------------------
def minimum_persons(it: Departure) -> Departure:
    """The rows that were asked are those of at least the policy's minimum of persons."""
    if it.table.persons < it.policy.minimum_persons:
        raise TooFewPersons(_sentence(it.policy, "minimum_persons", "too few persons at this site"), rule="minimum_persons")
    return it


def local_minimum(it: Departure) -> Departure:
    """No count of this site's own persons lies in 1..local_minimum-1. The step is refused whole: a cell is never altered.

    Under differential privacy the rule is not asked: the noise hides the count, and a refusal that hangs on it would show it.
    """
    least = it.policy.local_minimum if it.private is None else 0
    for f in it.fields:
        if f.kind in ("persons", "cell") and f.name in it.answer:
            counts = np.abs(np.asarray(it.answer[f.name], dtype=np.float64))
            if np.any((counts > 0) & (counts < least)):
                raise TooFewPersons(
                    _sentence(it.policy, "local_minimum", f"a count in {f.name} is too small"), rule="local_minimum"
                )
    return it


def effective_rows(it: Departure) -> Departure:
    """A weighted sum rests on enough persons: (Σw)²/Σw² (Kish, 1965) is at least the policy's minimum, and no person dominates.

    Weights are added up within persons first. Without this a steep question could weight all but one person away. Under
    differential privacy every person's part is bounded already, and a refusal would tell what the noise hides.
    """
    kept = {name: value for name, value in it.answer.items() if not name.rpartition(".")[2].startswith("@")}
    for name in it.answer.keys() - kept.keys():
        prefix, _, local = name.rpartition("@")
        if f"@{local}" != WEIGHTS or it.private is not None:
            continue
        weights = np.abs(np.asarray(it.answer[name], dtype=np.float64))
        person = np.asarray(it.answer.get(prefix + PERSONS, it.table.person))
        if weights.shape[:1] != person.shape or person.dtype.kind not in "iu" or not np.all(np.isfinite(weights)):
            raise PolicyRefuses("the weights of a weighted sum cannot be judged", rule="effective_rows")
        for column in weights.reshape(len(person), -1).T:
            _enough(it.policy, np.bincount(person, weights=column))
    return replace(it, answer=kept)


def _enough(policy: Policy, weights: Array) -> None:
    largest = float(weights.max(initial=0.0))
    if largest == 0.0:
        return  # nobody's number enters
    weights = weights / largest
    total = float(weights.sum())
    if total * total / float(np.square(weights).sum()) < policy.minimum_persons:
        raise TooFewPersons(
            _sentence(policy, "minimum_persons", "a weighted sum rests on too few persons"), rule="effective_rows"
        )
    if 1.0 / total > policy.dominance:
        raise TooFewPersons(_sentence(policy, "dominance", "one person dominates a weighted sum"), rule="dominance")


def numbers_per_person(it: Departure) -> Departure:
    """All numbers of all rounds that leave for a study, over the persons that they describe, stay within the policy's limit.

    A question that was answered before is not counted again: the rows are frozen, so it tells nothing new. What is counted is
    on disk before anything leaves, and never given back.
    """
    numbers = sum(field.size for field in it.fields)
    path = it.state / "released" / f"{it.study_digest}.journal"
    before = {bytes(record["question"]): int(record["numbers"]) for record in read(path)}
    computed_from = {} if it.version is None else {"version": it.version}
    question = digest(computed_from | {"question": described(it.asked.question), "subgroup": it.asked.analysis.subgroup})
    if question in before:
        return it
    if sum(before.values()) + numbers > it.policy.numbers_per_person * it.table.persons:
        raise PolicyRefuses(
            _sentence(it.policy, "numbers_per_person", "the study would take more numbers than its persons allow"),
            rule="numbers_per_person",
        )
    journal = Journal(path)
    try:
        journal.append({"question": question, "numbers": numbers})
    finally:
        journal.close()
    return it


def degrees_of_freedom(it: Departure) -> Departure:
    """A fit leaves enough persons beside its parameters: a saturated fit gives its persons back.

    A fit shows by a symmetric matrix among its real fields (information, cross products), whole or its upper triangle beside a
    vector of its side, which is the number of parameters. The persons are those of all sites, once a round has told them; the
    first round of a fit, whose total is unknown, passes.
    """
    shapes = [f.shape for f in it.fields if f.kind == "real" and f.shape]
    lengths = {shape[-1] for shape in shapes}
    sides = [s[-1] for s in shapes if len(s) >= 2 and s[-1] == s[-2]] + [
        p for p in lengths if p > 1 and p * (p + 1) // 2 in lengths
    ]
    if sides and it.known_persons is not None and it.known_persons - max(sides) < it.policy.degrees_of_freedom:
        raise PolicyRefuses(
            _sentence(it.policy, "degrees_of_freedom", "the fit has too many parameters for its persons"),
            rule="degrees_of_freedom",
        )
    return it


# ---- from numbers to ring elements ----------------------------------------------------------------------------------
def clip(it: Departure) -> Departure:
    """Exact sums are not clipped: a value beyond its bound is an error in `round_to_ring`. Under differential privacy each
    field keeps to its sensitivity: the step has bounded every person's part (`unit: person`; the gate sees no rows), or the
    array as a whole is scaled down to it in the L2 norm (`unit: site`). A field without sensitivity is refused."""
    if it.private is None:
        return it
    return replace(it, answer=noising.clipped(it.answer, it.fields, it.private.unit, it.finished))


def round_to_ring(it: Departure) -> Departure:
    """Numbers → ring elements. Raises `OutOfBounds`, `ValueNotFinite` or a wrong shape's error, each naming the field."""
    from fivefold.privacy.fixed_point import pack

    answer = it.answer
    if it.private is not None and it.private.unit == "site":
        answer = noising.rounded(answer, it.fields, noising.key_of(it.secret, _identity(it)))
    return replace(it, vector=pack(answer, it.fields, len(it.study.sites)))


def noise(it: Departure) -> Departure:
    """This site's share of the discrete Gaussian, under differential privacy; exact sums pass."""
    if it.private is None:
        return it
    assert it.vector is not None
    return replace(it, vector=noising.noised(it.vector, it.fields, noising.key_of(it.secret, _identity(it))))


def own_steps(it: Departure) -> NoisySteps | None:
    """What the question's step draws persons and noise from before there is an answer; None where it takes no noisy steps.
    Raises `PolicyRefuses` where the study has no differential privacy of persons."""
    if all(f.own is None for f in it.fields):
        return None
    if it.private is None or it.private.unit != "person":
        raise PolicyRefuses("noisy steps protect persons, and the study protects none", rule="noisy_steps")
    return noising.own_steps(it.fields, it.private.noise_multiplier, noising.key_of(it.secret, _identity(it)))


def reserve_budget(it: Departure) -> Departure:
    """What a noisy answer costs is within the study's own ε and the asset's budget, and on disk in the asset's ledger before
    the answer is masked; an exact sum marks the asset. Raises `BudgetSpent`, `PolicyRefuses`, `LedgerBroken`, `StorageFull`."""
    if it.private is None:
        if it.policy.exact_sums == "refused":
            raise PolicyRefuses(_sentence(it.policy, "exact_sums", "exact sums are refused"), rule="exact_sums")
        if it.log is not None:
            budget.mark_exact(it.state, it.policy, _release(it, 0.0), it.log)
        return it
    if it.log is None or it.asked.sharing is None:
        raise RunError("nothing could record what this answer costs", rule="noise_ledger")
    event = question_event(it.fields, it.private.noise_multiplier, it.asked.sharing.honest)
    release = _release(it, it.private.noise_multiplier)
    budget.reserve(it.state, it.policy, release, (event,), it.log, study_cap=(it.private.epsilon, it.private.delta))
    return it


def _release(it: Departure, scale: float) -> budget.Release:
    identity = _identity(it)
    question = digest({name: identity[name] for name in ("analysis", "question", "version") if name in identity}).hex()
    return budget.Release(it.study_digest, it.run, it.asked.round, question, identity["roster"], scale, it.data, it.study.title)


def _identity(it: Departure) -> Mapping[str, Any]:
    """What makes an answer the one it is: asked again it gets the same noise, and anything else gets fresh noise. The run is
    part of it, since the survivors of two runs may differ: with the same noise their difference would show one site's answer
    behind that site's share alone."""
    computed_from = {} if it.version is None else {"version": it.version}
    return computed_from | {
        "data": it.data,
        "study": it.study_digest,
        "run": it.run,
        "round": it.asked.round,
        "analysis": it.asked.analysis.name,
        "question": described(it.asked.question),
        "roster": tuple(s.name for s in it.study.sites),
    }


DISCLOSURE_CHECKS: tuple[Part, ...] = (
    minimum_persons,
    local_minimum,
    effective_rows,
    degrees_of_freedom,
    numbers_per_person,
)

GATE: tuple[Part, ...] = (*DISCLOSURE_CHECKS, clip, round_to_ring, noise, reserve_budget)
"""Read top to bottom. The node adds mask, log, sign and send: `leave(departure, (*GATE, mask, log, sign, send))`."""


def leave(it: Departure, parts: Sequence[Part]) -> Departure:
    """Pass every part in order; the first that objects raises, and nothing leaves."""
    for part in parts:
        it = part(it)
    return it


def seen(it: Departure) -> dict[str, Any]:
    """Every number that would leave, by field, for `fivefold site rehearse`: after the checks, before the mask."""
    passed = leave(it, tuple(p for p in DISCLOSURE_CHECKS if p is not numbers_per_person))
    return {field.name: np.asarray(passed.answer[field.name]) for field in it.fields}


def _sentence(policy: Policy, rule: str, why: str) -> str:
    line = policy.line(rule)
    return f"{FILE}, " + (f"line {line}" if line else "by default") + f", rule {rule}: {why}"
