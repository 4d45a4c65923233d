"""What a study's parts say about each other: every fault with its place in the file and what to write instead.

Faults make a study unusable; what an analysis asks of its own method is checked above (`governance/study_check.py`), since
methods lie above the study.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from fivefold.auth.keys import public_from_hex
from fivefold.errors import FivefoldError, KeyProblem
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.study import expressions
from fivefold.study.definition import Analysis, DifferentialPrivacy, Study
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.expression_parts import FUNCTIONS
from fivefold.study.expression_syntax import suggestion

Where = tuple[str | int, ...]
RESERVED = {*FUNCTIONS, *keyword.kwlist, "true", "false", "site", "Surv", "strata", "cluster"}
MOST_SITES = 128
MOST_ROWS = 10**12
MOST_DEADLINE = 7 * 86_400.0
MOST_EPSILON, MOST_DELTA, MOST_NOISE = 100.0, 1e-4, 1e6
SUBTRACTION = "with two sites each would learn the other's numbers by subtracting its own from the sum"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where (`("sites", 1, "public_key")`), in which words, and what to write instead."""

    where: Where
    what: str
    instead: str = ""


def faults(study: Study) -> list[Fault]:
    """Everything in the study that contradicts itself, in no particular order."""
    found = list(dictionary_faults(study.dictionary))
    for part in (_people, _variables, _derived, _cohort, _analyses, _envelope, _privacy, _outputs, _agreements, _stragglers):
        found += part(study)
    return found


def unready(study: Study, today: date | None = None) -> list[Fault]:
    """What may still be open while a study is drafted, but not when it is frozen: keys, and an expiry that lies ahead."""
    owners: list[tuple[Where, str, str]] = [(("lead", "public_key"), "the lead", study.lead.public_key)]
    owners += [(("sites", i, "public_key"), f"site {s.name!r}", s.public_key) for i, s in enumerate(study.sites)]
    owners += _checkers(study)
    found = [
        Fault(
            where, f"the public key of {who} is still missing", "Paste the 64 hex digits that `fivefold keys show FILE` prints."
        )
        for where, who, key in owners
        if placeholder(key)
    ]
    if today is not None and _day(study.agreements.expires) is not None and study.agreements.expires < today.isoformat():
        found.append(Fault(("agreements", "expires"), f"the study expired on {study.agreements.expires}", "Write a later day."))
    return found


def placeholder(key: str) -> bool:
    """Whether a key is yet to be filled in: empty, or a note in angle brackets."""
    return not key or (key.startswith("<") and key.endswith(">"))


def dictionary_faults(dictionary: Dictionary) -> Iterator[Fault]:
    """Faults of the dictionary itself; their places begin with `dictionary`."""
    for name, variable in dictionary.variables.items():
        yield from _variable_faults(variable, ("dictionary", "variables", name))


def _variable_faults(variable: Variable, where: Where) -> Iterator[Fault]:
    name, low, high = variable.name, variable.minimum, variable.maximum
    if name in RESERVED:
        yield Fault(where, f"{name!r} is a word of the formula language", f"Call the variable {name}_value, for example.")
    if variable.type in ("number", "integer", "date"):
        if low is not None and high is not None and low >= high:
            yield Fault(
                (*where, "minimum"), f"the range of {name!r} is empty: {low:g} to {high:g}", "Write the smaller one first."
            )
        if variable.codes:
            yield Fault((*where, "codes"), f"{name!r} is a {variable.type} and has codes", "Write `type: category`.")
        if variable.type == "integer" and any(v is not None and v != int(v) for v in (low, high)):
            yield Fault((*where, "minimum"), f"{name!r} is an integer with a broken range", "Write whole numbers.")
        return
    if low is not None or high is not None:
        yield Fault((*where, "minimum" if low is not None else "maximum"), f"a {variable.type} has no range", "Take it out.")
    codes = list(variable.codes)
    if variable.type == "category":
        if len(codes) < 2:
            yield Fault(
                (*where, "codes"), f"category {name!r} needs two codes or more", 'Write codes: {"1": male, "2": female}.'
            )
        twice = sorted({label for label in variable.codes.values() if list(variable.codes.values()).count(label) > 1})
        if twice:
            yield Fault(
                (*where, "codes"), f"two codes of {name!r} share the label {twice[0]!r}", "Give each code its own label."
            )
    elif variable.type == "boolean" and codes and codes != ["0", "1"]:
        yield Fault((*where, "codes"), f"boolean {name!r} has other codes than 0 and 1", 'Write {"0": no, "1": yes}.')
    elif variable.type == "text" and codes:
        yield Fault((*where, "codes"), f"text {name!r} has codes", "Write `type: category`.")
    both = sorted(set(codes) & set(variable.missing_codes))
    if both:
        yield Fault((*where, "missing_codes"), f"code {both[0]!r} of {name!r} is both a value and missing", "Take one out.")


# ---- the study's own parts ------------------------------------------------------------------------------------------
def _people(study: Study) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    owners: list[tuple[Where, str, str]] = [(("lead", "public_key"), "the lead", study.lead.public_key)]
    owners += [(("sites", i, "public_key"), f"site {s.name!r}", s.public_key) for i, s in enumerate(study.sites)]
    owners += _checkers(study)
    for where, who, key in owners:
        if placeholder(key):
            continue
        try:
            public = public_from_hex(key).hex()
        except KeyProblem:
            yield Fault(where, f"the public key of {who} is not 64 hex digits", "Copy it from `fivefold keys show FILE`.")
            continue
        if public != key:
            yield Fault(
                where, f"the public key of {who} has capitals or spaces", "Write it as `fivefold keys show FILE` prints it."
            )
        if public in seen:
            yield Fault(where, f"{who} has the same public key as {seen[public]}", "Every party makes a key of its own.")
        seen.setdefault(public, who)
    orcid = study.lead.orcid
    if orcid and not re.fullmatch(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", orcid):
        yield Fault(("lead", "orcid"), f"{orcid!r} is not an ORCID", "Write it as 0000-0002-1825-0097.")
    folded: dict[str, str] = {}
    for i, site in enumerate(study.sites):
        if site.name.lower() in folded:
            yield Fault(("sites", i, "name"), f"two sites are called {site.name!r}", "Give each site its own name.")
        folded[site.name.lower()] = site.name
    count = len(study.sites)
    if count < 3:
        why = SUBTRACTION if count == 2 else "one site alone has nobody to add to"
        yield Fault(("sites",), f"a study needs three sites or more: {why}", "Bring in another site.")
    if count > MOST_SITES:
        why = "each masks towards all others, and this version has no sparse graph for more"
        yield Fault(("sites",), f"{count} sites are more than the {MOST_SITES} of a secure sum: {why}", f"Ask {MOST_SITES}.")


def _variables(study: Study) -> Iterator[Fault]:
    known = list(study.dictionary.variables)
    for name in study.variables:
        where: Where = ("variables", name)
        if name not in study.dictionary:
            yield Fault(where, f"the dictionary has no variable {name!r}", suggestion(name, known))
            continue
        if name == study.person:
            yield Fault(where, f"{name!r} identifies persons, so it is never a variable", "Take it out of `variables`.")
        yield from _range_needed(study.dictionary[name], where, f"`minimum` and `maximum` of {name!r} in the dictionary")


def _range_needed(variable: Variable, where: Where, what: str) -> Iterator[Fault]:
    if variable.type in ("number", "integer") and (variable.minimum is None or variable.maximum is None):
        yield Fault(where, f"{variable.name!r} has no range, and the exactness of sums follows from it", f"Write {what}.")


def _derived(study: Study) -> Iterator[Fault]:
    known = {n: study.dictionary[n] for n in study.variables if n in study.dictionary}
    for i, derived in enumerate(study.derived):
        where: Where = ("derived", i)
        variable = derived.variable
        if variable.name in known or variable.name in study.dictionary or variable.name == study.person:
            yield Fault((*where, "name"), f"{variable.name!r} exists already", "Give the derived variable a name of its own.")
        yield from _variable_faults(variable, where)
        if variable.type == "text":
            yield Fault((*where, "type"), "a derived variable cannot be text", "Write `type: category`.")
        else:
            scope = Dictionary(study.dictionary.name, study.dictionary.version, known)
            yield from _expression(study, derived.expression, scope, (*where, "expression"), variable)
        yield from _range_needed(variable, where, "`minimum` and `maximum`")
        known[variable.name] = variable


def _cohort(study: Study) -> Iterator[Fault]:
    scope = _scope(study)
    for key, conditions in (("include", study.cohort.include), ("exclude", study.cohort.exclude)):
        for i, condition in enumerate(conditions):
            yield from _expression(study, condition, scope, ("cohort", key, i))
    index = study.cohort.index_date
    if index is not None:
        where: Where = ("cohort", "index_date")
        yield from _known(study, index, scope, where)
        if index in scope and scope[index].type != "date":
            yield Fault(where, f"{index!r} is a {scope[index].type}, not a date", "Name a variable with `type: date`.")


def _analyses(study: Study) -> Iterator[Fault]:
    scope = _scope(study)
    names: set[str] = set()
    for i, analysis in enumerate(study.analyses):
        if analysis.name.lower() in names:
            yield Fault(("analyses", i, "name"), f"two analyses are called {analysis.name!r}", "Give each its own name.")
        names.add(analysis.name.lower())
        for k, name in enumerate(analysis.variables):
            yield from _known(study, name, scope, ("analyses", i, "variables", k))
        if analysis.subgroup:
            yield from _expression(study, analysis.subgroup, scope, ("analyses", i, "subgroup"))
        if analysis.sites:
            yield from _members(study, analysis, i)


def _members(study: Study, analysis: Analysis, i: int) -> Iterator[Fault]:
    """An analysis of some sites: those of the study, each once, and as many as every sum needs."""
    where, known = ("analyses", i, "sites"), [s.name for s in study.sites]
    wrong = [n for n in analysis.sites if n not in known]
    if wrong or len(set(analysis.sites)) != len(analysis.sites):
        what = f"the study has no site {wrong[0]!r}" if wrong else "a site is named twice"
        yield Fault(where, what, f"Name some of {', '.join(known)}, each once.")
        return
    if analysis.method == "fedbuff":
        yield Fault(where, "a training in buffers takes whoever is ready, and names no sites", "Leave `sites` out.")
    if study.privacy.minimum_sites >= 3 and len(analysis.sites) < (least := _least(study)):
        what = f"{len(analysis.sites)} sites are named, and every sum of this study needs {least}"
        yield Fault(where, what, "Name more, or lower the threshold or the drop-outs that the noise covers.")


def _least(study: Study) -> int:
    try:
        return thresholds(study).survivors_needed
    except FivefoldError:  # a fault of the thresholds, told where they stand
        return 0


def _envelope(study: Study) -> Iterator[Fault]:
    envelope, scope = study.envelope, _scope(study)
    for k, name in enumerate(envelope.variables):
        yield from _known(study, name, scope, ("envelope", "variables", k))
    for k, condition in enumerate(envelope.subgroups):
        yield from _expression(study, condition, scope, ("envelope", "subgroups", k))
    if not 0 <= envelope.fits <= 1000:
        yield Fault(("envelope", "fits"), f"{envelope.fits} fits is not between 0 and 1000", "Write a smaller number.")
    if envelope.fits and not (envelope.methods and envelope.variables):
        yield Fault(("envelope", "fits"), "an envelope with fits names its methods and variables", "Write both, or fits: 0.")


def _privacy(study: Study) -> Iterator[Fault]:
    privacy, count = study.privacy, len(study.sites)
    if privacy.minimum_sites < 3:
        why = SUBTRACTION if privacy.minimum_sites == 2 else "a sum over one site is that site's own number"
        yield Fault(("privacy", "minimum_sites"), f"minimum_sites is below 3: {why}", "Write 3 or more.")
    elif privacy.minimum_sites > count >= 3:
        yield Fault(
            ("privacy", "minimum_sites"), f"minimum_sites is {privacy.minimum_sites}, but the study has {count} sites",
            f"Write {count} or less.",
        )  # fmt: skip
    limits = {
        "minimum_persons": (1, MOST_ROWS), "minimum_difference": (2, MOST_SITES), "colluders": (0, MOST_SITES),
        "honest": (2, MOST_SITES), "max_rows_per_site": (1, MOST_ROWS),
    }  # fmt: skip
    good = True
    for key, (low, high) in limits.items():
        if not low <= getattr(privacy, key) <= high:
            good = False
            yield Fault(("privacy", key), f"{key} is {getattr(privacy, key)}, not {low} to {high}", f"Write {low} or more.")
    if privacy.differential_privacy is not None:
        yield from _noise(privacy.differential_privacy, privacy.colluders, count)
    if good and 3 <= privacy.minimum_sites <= count <= MOST_SITES:
        yield from _threshold(study)


def _noise(private: DifferentialPrivacy, colluders: int, sites: int) -> Iterator[Fault]:
    def fault(key: str, what: str, instead: str) -> Fault:
        return Fault(("privacy", "differential_privacy", key), what, instead)

    if not 0 < private.epsilon <= MOST_EPSILON:
        yield fault("epsilon", f"an epsilon of {private.epsilon:g} promises nothing", f"Write 1, or at most {MOST_EPSILON:g}.")
    if not 0 < private.delta < 1:
        yield fault("delta", f"delta is a probability, not {private.delta:g}", "Write 1e-6, for example.")
    elif private.delta > MOST_DELTA:
        what = f"with a delta of {private.delta:g} the promise may fail for one in {1 / private.delta:,.0f}"
        yield fault("delta", what, f"Write {MOST_DELTA:g} or less, and less than one over the number of persons.")
    if not 0 < private.noise_multiplier <= MOST_NOISE:
        yield fault("noise_multiplier", "the noise multiplier is not above 0", "`fivefold study estimate` helps to choose it.")
    if not 0 <= private.dropouts <= sites - 3:
        yield fault(
            "dropouts", f"of {sites} sites {private.dropouts} cannot be missing: a sum needs three", f"Write 0 to {sites - 3}."
        )
    elif sites - private.dropouts - colluders < 2:
        yield fault(
            "dropouts", "fewer than two sites are left that neither drop out nor collude, and their noise has to suffice",
            "Lower dropouts or colluders.",
        )  # fmt: skip


def _threshold(study: Study) -> Iterator[Fault]:
    try:
        thresholds(study)
    except FivefoldError as error:
        key = "threshold" if study.privacy.threshold is not None else "colluders"
        yield Fault(("privacy", key), error.message, error.hint)


def thresholds(study: Study, among: int | None = None) -> Thresholds:
    """What the study's secure sums withstand; `among`: those of a buffer of so many sites. Raises `StudyInvalid` for
    combinations that promise what cannot be kept."""
    p, n = study.privacy, len(study.sites)
    # A noisy sum is opened only if enough shares of the noise are in it.
    private, many = p.differential_privacy, n if among is None else among
    least = p.minimum_sites if private is None else max(p.minimum_sites, many - private.dropouts)
    return Thresholds(n, p.threshold, least, p.colluders, p.honest, p.adversary)


def _checkers(study: Study) -> list[tuple[Where, str, str]]:
    named = enumerate(study.outputs.checkers)
    return [(("outputs", "checkers", i, "public_key"), f"output checker {c.name!r}", c.public_key) for i, c in named]


def _outputs(study: Study) -> Iterator[Fault]:
    checkers, needed = study.outputs.checkers, study.outputs.checks
    names = [c.name.casefold() for c in checkers]
    for i, name in enumerate(names):
        where: Where = ("outputs", "checkers", i, "name")
        if name == study.lead.name.casefold():
            yield Fault(where, "the lead cannot check the study's own outputs", "Name somebody else.")
        if name in names[:i]:
            yield Fault(where, f"two output checkers are called {checkers[i].name!r}", "Checkers are different persons.")
    if needed < 1 or (checkers and needed > len(checkers)):
        many = f"{len(checkers)} are named" if checkers else "one has to check at least"
        yield Fault(("outputs", "checks"), f"{needed} checkers must agree, and {many}", "Name more checkers, or ask fewer.")


def _agreements(study: Study) -> Iterator[Fault]:
    if _day(study.agreements.expires) is None:
        yield Fault(("agreements", "expires"), f"{study.agreements.expires!r} is not a day", "Write it as 2027-12-31.")


def _stragglers(study: Study) -> Iterator[Fault]:
    it, n = study.stragglers, len(study.sites)
    if it.policy != "quorum" and it.deadline is not None:
        yield Fault(("stragglers", "deadline"), f"the policy {it.policy} has no deadline", "Write `policy: quorum`.")
    if it.policy == "quorum" and not (it.deadline is not None and 0 < it.deadline <= MOST_DEADLINE):
        what = "the policy quorum waits for all sites until a deadline, in seconds"
        yield Fault(("stragglers", "deadline"), what, "Write `deadline: 60`, or `policy: drop` for none.")
    if it.policy == "wait" and it.quorum is not None:
        yield Fault(("stragglers", "quorum"), "the policy wait waits for all sites", "Write `policy: quorum`.")
    if it.policy == "wait" or it.quorum is None:
        return
    with suppress(FivefoldError):  # that thresholds contradict each other is said elsewhere
        least = thresholds(study).survivors_needed
        if not least <= it.quorum <= n:
            what = f"a quorum of {it.quorum} is not {least} (the sites that a sum needs) to {n} (all sites)"
            yield Fault(("stragglers", "quorum"), what, f"Write {least} to {n}, or leave it out: {least}.")


# ---- small questions ------------------------------------------------------------------------------------------------
def _scope(study: Study) -> Dictionary:
    used = {n: study.dictionary[n] for n in study.variables if n in study.dictionary}
    used |= {d.variable.name: d.variable for d in study.derived}
    return Dictionary(study.dictionary.name, study.dictionary.version, used)


def _known(study: Study, name: str, scope: Dictionary, where: Where) -> Iterator[Fault]:
    if name in scope:
        return
    if name in study.dictionary:
        yield Fault(where, f"{name!r} is used, but nothing says why", f"Write under `variables`: {name}: why it is needed.")
    else:
        yield Fault(where, f"there is no variable {name!r}", suggestion(name, list(scope.variables)))


def _expression(study: Study, text: str, scope: Dictionary, where: Where, target: Variable | None = None) -> Iterator[Fault]:
    try:
        unsaid = [n for n in expressions.names(text) if n not in scope and n in study.dictionary]
        if unsaid:
            for name in unsaid:
                yield from _known(study, name, scope, where)
        elif target is None:
            expressions.check_condition(text, scope)
        else:
            expressions.check(text, scope, target)
    except FivefoldError as error:
        yield Fault(where, error.message, error.hint)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
