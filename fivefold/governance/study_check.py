"""Everything that `fivefold study check` finds: the file, its parts, and each analysis as its own method reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from fivefold import plugins
from fivefold.algorithms.method import Setting, charged
from fivefold.errors import FivefoldError, FormulaInvalid
from fivefold.privacy.dp.accounting import multiplier_for, spent
from fivefold.replay.buffered import buffers_of, survivors_needed
from fivefold.replay.cursor import Cursor, setting_of
from fivefold.replay.totals import may_be_on_trust
from fivefold.study import expressions, formula
from fivefold.study.consistency import Fault, Where, unready
from fivefold.study.definition import Analysis, Study
from fivefold.study.expression_syntax import suggestion
from fivefold.study.yaml import Located, Reading, invalid, read


@dataclass(frozen=True)
class Checked:
    """What was found. `faults` make the study unusable; `open` has to be filled in before it is frozen; `notes` are worth
    knowing. `reading.study` is the study wherever its shape could be read."""

    reading: Reading
    faults: tuple[Located, ...]
    open: tuple[Located, ...]
    notes: tuple[Located, ...]

    def enforced(self, *, ready: bool = False) -> Study:
        """The study. Raises `StudyInvalid` with every fault; with `ready` also with what is still open."""
        found = self.faults + (self.open if ready else ())
        if found or self.reading.study is None:
            raise invalid(found)
        return self.reading.study


def check(path: str | Path, *, today: date | None = None) -> Checked:
    """Check a study file in every respect. Raises `StudyNotFound`, and `StudyInvalid` for what is not even YAML."""
    reading = read(path)
    if reading.study is None:
        return Checked(reading, reading.faults, (), ())
    study = reading.study
    # What the analyses say is worth reading only once the variables are right.
    found = () if reading.faults else reading.locate([*method_faults(study), *noise_faults(study), *buffer_faults(study)])
    return Checked(
        reading,
        tuple(sorted({*reading.faults, *found}, key=lambda f: (f.file, f.line))),
        reading.locate(unready(study, today or date.today())),
        reading.locate(notes(study)),
    )


def method_faults(study: Study) -> Iterator[Fault]:
    """Each analysis as its own method reads it; each method that the envelope names."""
    surroundings = setting_of(study)
    for i, analysis in enumerate(study.analyses):
        where: Where = ("analyses", i)
        if not known_method(analysis.method):
            yield _unknown_method(analysis.method, (*where, "method"))
            continue
        unsaid = list(_unsaid(study, analysis, where))
        yield from unsaid
        if not unsaid:
            yield from _parsed(analysis, surroundings, where)
    for k, name in enumerate(study.envelope.methods):
        if not known_method(name):
            yield _unknown_method(name, ("envelope", "methods", k))


def noise_faults(study: Study) -> Iterator[Fault]:
    """What a study with differential privacy asks and cannot have: a method that knows no sensitivity, another unit, noise too
    coarse for its sums, more questions than its ε pays for."""
    private = study.privacy.differential_privacy
    if private is None:
        return
    place: Where = ("privacy", "differential_privacy")
    bounded = []
    for i, analysis in enumerate(study.analyses):
        if not known_method(analysis.method):
            continue
        about = plugins.method(analysis.method)
        if private.unit not in about.protects:
            yield Fault(("analyses", i, "method"), *_unprotected(analysis, private.unit, about.protects))
            continue
        try:
            bounded.append(about.cost(parsed(study, analysis)))
            cursor = Cursor(study, (analysis,))
            if cursor.open is not None:
                _ = cursor.open.fields
        except FivefoldError as error:
            yield Fault(("analyses", i), f"analysis {analysis.name!r}: {error.message}", error.hint)
    for k, name in enumerate(study.envelope.methods):
        if known_method(name) and private.unit not in plugins.method(name).protects:
            what = f"the envelope holds {name}, which cannot run with differential privacy of one {private.unit}"
            yield Fault(("envelope", "methods", k), what, "Take it out.")
    questions = sum(c.rounds for c in bounded)
    if questions and all(v > 0 for v in (private.epsilon, private.delta, private.noise_multiplier)):
        shared, own = charged(bounded)
        cost = spent(shared, private.noise_multiplier, private.delta, own)
        if cost > private.epsilon:
            wanted = multiplier_for(shared, private.epsilon, private.delta, own)
            yield Fault(
                (*place, "noise_multiplier"),
                f"{questions} questions with a noise multiplier of {private.noise_multiplier:g} cost ε = {cost:.3g} at "
                f"δ = {private.delta:g}, and epsilon is {private.epsilon:g}",
                f"Write noise_multiplier: {wanted:g}",
            )


def buffer_faults(study: Study) -> Iterator[Fault]:
    """Buffers that no secure sum of the study can open, or that no study fills."""
    for i, analysis in enumerate(study.analyses):
        if not known_method(analysis.method):
            continue
        with suppress(FivefoldError):  # what cannot be read is said elsewhere
            for buffer in buffers_of(study, (analysis,)):
                least = survivors_needed(study, buffer)
                if not least <= buffer.size <= len(study.sites):
                    yield Fault(
                        ("analyses", i, "options", "buffer"),
                        f"analysis {analysis.name!r}: a buffer of {buffer.size} sites is not {least} (which a sum needs to be "
                        f"opened) to {len(study.sites)} (all sites)",
                        f"Write `buffer: {least}` or more, or another `threshold` under privacy.",
                    )


def _unprotected(analysis: Analysis, unit: str, protects: tuple[str, ...]) -> tuple[str, str]:
    name = f"analysis {analysis.name!r}: the method {analysis.method}"
    if protects:
        return f"{name} bounds what one {protects[0]} changes, not what one {unit} does", f"Write unit: {protects[0]}."
    able = [n for n in plugins.METHODS if unit in plugins.method(n).protects]
    return f"{name} cannot run with differential privacy", f"Methods that can: {', '.join(able) or 'none'}."


def parsed(study: Study, analysis: Analysis) -> Any:
    """The method's own specification of an analysis. Raises `StudyInvalid` or `FormulaInvalid`."""
    return plugins.method(analysis.method).parse(analysis, setting_of(study))


def known_method(name: str) -> bool:
    """Whether a method of this name is installed."""
    from importlib.metadata import entry_points

    return (
        name in plugins.METHODS
        or name in plugins.FOREIGN
        or any(p.name == name for p in entry_points(group="fivefold.methods"))
    )


def _unknown_method(name: str, where: Where) -> Fault:
    return Fault(where, f"there is no method called {name!r}", suggestion(name, list(plugins.METHODS)))


def _unsaid(study: Study, analysis: Analysis, where: Where) -> Iterator[Fault]:
    """Variables of the formula that the dictionary knows, but that the study never says why it uses."""
    if not analysis.formula or analysis.method not in plugins.METHODS:
        return
    try:
        names = formula.parse(analysis.formula).variables
    except FormulaInvalid as error:
        yield Fault((*where, "formula"), error.message, error.hint)
        return
    scope = study.phenotypes
    for name in names:
        if name in scope:
            continue
        if name in study.dictionary:
            why = f"Write under `variables`: {name}: why it is needed."
            yield Fault((*where, "formula"), f"{name!r} is used, but nothing says why", why)
        else:
            yield Fault((*where, "formula"), f"there is no variable {name!r}", suggestion(name, list(scope.variables)))


def _parsed(analysis: Analysis, surroundings: Setting, where: Where) -> Iterator[Fault]:
    try:
        plugins.method(analysis.method).parse(analysis, surroundings)
    except FivefoldError as error:
        part: Where = ("formula",) if isinstance(error, FormulaInvalid) and analysis.formula else ()
        for key in analysis.options:
            if not part and re.search(rf"\b{re.escape(str(key))}\b", error.message):
                part = ("options", key)
        prefix = f"analysis {analysis.name!r}: "
        yield Fault((*where, *part), prefix + error.message.removeprefix(prefix), error.hint)


def notes(study: Study) -> Iterator[Fault]:
    """What is worth knowing, though nothing is wrong."""
    used = set(used_variables(study))
    for name in study.variables:
        if name not in used:
            yield Fault(("variables", name), f"nothing uses {name!r}", "Ask for no more than is needed: take it out.")
    private, most = study.privacy.differential_privacy, len(study.sites) * study.privacy.max_rows_per_site
    if private is not None and private.unit == "person" and private.delta * most > 1:
        yield Fault(
            ("privacy", "differential_privacy", "delta"),
            f"delta should lie well below one over the number of persons, of whom there may be {most:,}",
            "Write a smaller delta, or a max_rows_per_site that is nearer to the truth.",
        )
    for i, analysis in enumerate(study.analyses):
        if known_method(analysis.method) and plugins.method(analysis.method).trains:
            yield from _models(study, analysis, i)
    if study.stragglers.policy != "wait" and private is None:
        yield Fault(
            ("stragglers", "policy"),
            "a site that is left out of one exact sum and is in the next shows its own total by the difference: the sites "
            "refuse such a sum unless each of them permits its totals",
            "Ask the custodians for site_totals: permitted, or give the study differential_privacy.",
        )
    if study.envelope.fits == 0 and (study.envelope.methods or study.envelope.variables or study.envelope.subgroups):
        yield Fault(
            ("envelope", "fits"), "the envelope allows no fits, so nothing can be varied", "Write fits: 5, for example."
        )


def _models(study: Study, analysis: Analysis, i: int) -> Iterator[Fault]:
    about = plugins.method(analysis.method)
    try:
        cost = about.cost(parsed(study, analysis))
    except FivefoldError:
        return  # said as a fault
    if about.gathers:
        yield Fault(
            ("analyses", i),
            f"analysis {analysis.name!r} shows each site's own update to the coordinator and to all sites, in every round",
            "Each site's policy has to name the step, and its custodian to permit site_totals; see "
            "docs/explanation/robust-aggregation.md.",
        )
    elif may_be_on_trust(cost.numbers_per_round, len(study.sites), trains=True, buffered=about.buffers):
        why = "are summed over buffers" if about.buffers else "may be too large for its sites to add up"
        yield Fault(
            ("analyses", i),
            f"the models of analysis {analysis.name!r} {why}: they are taken on trust",
            "A coordinator could send a false model; see docs/threat-model.md.",
        )
    for line in cost.remarks:
        yield Fault(("analyses", i, "options", "clip"), line, "See docs/explanation/differential-privacy.md.")


def used_variables(study: Study) -> tuple[str, ...]:
    """Every variable that cohort, derived variables, analyses or envelope read, each once."""
    texts = [*study.cohort.include, *study.cohort.exclude, *study.envelope.subgroups]
    texts += [a.subgroup for a in study.analyses if a.subgroup] + [d.expression for d in study.derived]
    found = [study.cohort.index_date or "", *study.envelope.variables]
    for text in texts:
        try:
            found += expressions.names(text)
        except FivefoldError:
            continue
    for analysis in study.analyses:
        found += analysis.variables
        # Any word of a formula or an option that is a variable's name counts as a use of it.
        found += re.findall(r"[A-Za-z]\w*", analysis.formula) + re.findall(r"[A-Za-z]\w*", repr(dict(analysis.options)))
    known = {*study.variables, *(d.variable.name for d in study.derived)}
    return tuple(n for n in dict.fromkeys(found) if n in known)
