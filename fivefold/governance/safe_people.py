"""Safe people: may these persons take part? Judged by the site's own register of people and the conditions of its policy.

Every party speaks with a key; the register says whose it is, in which role, until when, and which training and terms of use
stand behind it. A lapse refuses by a named rule at the next question, since the register is read from disk each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from fivefold.governance.policy import Decision, Policy
from fivefold.governance.policy_keys import People, Role
from fivefold.governance.register import SEPARATED, Person, Register
from fivefold.study.definition import Study


def judge(
    policy: Policy,
    study: Study,
    register: Register,
    today: date,
    *,
    custodian: str = "",
    checkers: Sequence[tuple[str, str]] = (),
) -> list[Decision]:
    """What the site says to the study's people. `custodian` is the key that approves or approved, `checkers` are the site's own
    (name, key); both are judged where they are known."""
    out = [separated(study, register, today, checkers)]
    rules = policy.people
    if rules is None:
        return [*out, Decision(True, "people", 0, "this site asks for no training, terms or register of the study's people")]
    for role in rules.required:
        asked = _holders(study, role, custodian, checkers)
        if asked:
            for name, key in asked:
                out += _held(policy, rules, register, role, name, key, today)
        elif role not in ("lead", "checker", "custodian"):
            out += _somebody(policy, rules, register, role, today)
        elif role == "checker":
            why = "the study names no output checker"
            out.append(Decision(False, "people.required", policy.line("people.required"), why))
    return out


def _holders(study: Study, role: Role, custodian: str, checkers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The persons who act in a role, (name, key), as study and approval name them."""
    if role == "lead":
        return ((study.lead.name, study.lead.public_key),)
    if role == "checker":
        return (*((c.name, c.public_key) for c in study.outputs.checkers), *checkers)
    return (("the custodian", custodian),) if role == "custodian" and custodian else ()


def _held(
    policy: Policy, rules: People, register: Register, role: Role, name: str, key: str, today: date
) -> Iterator[Decision]:
    """One decision for each thing that a person in a role needs."""

    def said(permit: bool, rule: str, sentence: str) -> Decision:
        return Decision(permit, rule, policy.line(rule), sentence, evidence)

    person, evidence = register.people.get(key), ""
    if person is None or role not in person.roles:
        yield said(False, "people.required", f"{name} does not stand in this site's register of people as {role}")
        return
    evidence = _evidence(person)
    until = person.roles[role]
    if today > until:
        yield said(False, "people.required", f"{person.name} was {role} until {until}")
        return
    yield said(True, "people.required", f"{person.name} is {role} until {until}")
    for training in rules.training:
        if role in training.roles:
            yield _valid(policy, "people.training", f"the training {training.course}", person, person.training.get(
                training.course), today)  # fmt: skip
    if rules.terms is not None:
        yield _valid(policy, "people.terms", f"the terms of use {rules.terms}", person, person.terms.get(rules.terms), today)


def _valid(policy: Policy, rule: str, what: str, person: Person, until: date | None, today: date) -> Decision:
    line, evidence = policy.line(rule), _evidence(person)
    if until is None:
        return Decision(False, rule, line, f"the register has no entry of {what} for {person.name}", evidence)
    if today > until:
        return Decision(False, rule, line, f"{what} of {person.name} lapsed on {until}", evidence)
    return Decision(True, rule, line, f"{what} of {person.name} hold until {until}", evidence)


def _somebody(policy: Policy, rules: People, register: Register, role: Role, today: date) -> Iterator[Decision]:
    """A role that no study names (operator, auditor, reviewer): somebody at the site must fill it, in good standing."""
    held = [list(_held(policy, rules, register, role, p.name, p.key, today)) for p in register.who(role, today)]
    whole = [found for found in held if all(d.permit for d in found)]
    if whole:
        yield from whole[0]
    elif held:
        yield from held[0]
    else:
        yield Decision(False, "people.required", policy.line("people.required"), f"nobody in the register is {role}")


def separated(study: Study, register: Register, today: date, checkers: Sequence[tuple[str, str]] = ()) -> Decision:
    """Lead, output checkers and those who run nodes are different persons: by key, by name, and by the register."""
    rule = "separation_of_duties"
    nodes = {s.public_key for s in study.sites}
    named = [(c.name, c.public_key) for c in study.outputs.checkers] + list(checkers)
    for name, key in named:
        if key == study.lead.public_key or name.casefold() == study.lead.name.casefold():
            return Decision(False, rule, 0, f"{name} leads the study and would check its outputs")
        if key in nodes:
            return Decision(False, rule, 0, f"{name} would check outputs with the key of a node")
    if study.lead.public_key in nodes:
        return Decision(False, rule, 0, "the lead's key is the key of a node")
    acting: list[tuple[str, str, Role]] = [(study.lead.name, study.lead.public_key, "lead")]
    acting += [(name, key, "checker") for name, key in named]
    for name, key, role in acting:
        person = register.people.get(key)
        other = next((r for r in SEPARATED if person is not None and r != role and person.holds(r, today)), None)
        if other is not None:
            return Decision(False, rule, 0, f"{name} acts as {role} here, and is {other} in this site's register")
    return Decision(True, rule, 0, "lead, output checkers and nodes are different persons")


def _evidence(person: Person) -> str:
    return f"state/people, statement {person.statement[:16]}" if person.statement else "site.yaml, custodians"
