"""Between the border's models, the frozen values inside, and the document from which the canonical form is made.

Order means something in a study (the first code is the reference, analyses run one after the other) and JSON objects have none,
so the document holds ordered mappings as lists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fivefold.errors import StudyInvalid
from fivefold.study.definition import (
    Agreements,
    Analysis,
    Cohort,
    Derived,
    DifferentialPrivacy,
    Envelope,
    Lead,
    OutputChecker,
    Outputs,
    Privacy,
    Stragglers,
    Study,
    StudySite,
)
from fivefold.study.dictionary import Dictionary, Variable

if TYPE_CHECKING:
    from fivefold.study.schema import DictionaryFile, StudyFile

FORMAT = "fivefold study 1"
SAFE_INTEGER = 2**53 - 1


def study_of(file: StudyFile, dictionary: Dictionary) -> Study:
    """The frozen study of a checked file and its dictionary."""
    return Study(
        title=file.title,
        question=file.question,
        lead=Lead(**file.lead.model_dump()),
        sites=tuple(StudySite(**s.model_dump()) for s in file.sites),
        dictionary=dictionary,
        person=file.person,
        cohort=Cohort(**file.cohort.model_dump()),
        variables=dict(file.variables),
        derived=tuple(
            Derived(Variable(**d.model_dump(exclude={"expression"})), " ".join(d.expression.split())) for d in file.derived
        ),
        analyses=tuple(Analysis(**a.model_dump(exclude={"options"}), options=ordered(a.options)) for a in file.analyses),
        envelope=Envelope(**file.envelope.model_dump()),
        privacy=_privacy(file),
        outputs=Outputs(
            **file.outputs.model_dump(exclude={"checkers"}),
            checkers=tuple(OutputChecker(**c.model_dump()) for c in file.outputs.checkers),
        ),
        agreements=Agreements(**file.agreements.model_dump()),
        seed=file.seed,
        stragglers=Stragglers(**file.stragglers.model_dump()),
    )


def _privacy(file: StudyFile) -> Privacy:
    noise = file.privacy.differential_privacy
    return Privacy(
        **file.privacy.model_dump(exclude={"differential_privacy"}),
        differential_privacy=None if noise is None else DifferentialPrivacy(**noise.model_dump()),
    )


def dictionary_of(file: DictionaryFile) -> Dictionary:
    """The frozen dictionary of a checked file."""
    variables = {n: Variable(name=n, **v.model_dump()) for n, v in file.variables.items()}
    return Dictionary(file.name, file.version, variables)


def ordered(value: Any) -> Any:
    """Options as they come out of the canonical form: keys sorted, lists as tuples, whole floats as integers.

    Raises `StudyInvalid` for what JSON cannot carry exactly: most integers beyond 2^53, NaN, infinities.
    """
    if isinstance(value, Mapping):
        return {str(k): ordered(value[k]) for k in sorted(value, key=lambda k: str(k).encode("utf-16-be"))}
    if isinstance(value, (list, tuple)):
        return tuple(ordered(v) for v in value)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return _exact(value)
    raise StudyInvalid(f"a {type(value).__name__} cannot stand in options", help="Write numbers, texts, lists or mappings.")


def _exact(value: int | float) -> int | float:
    """Whole numbers up to 2^53 as integers, all others as the double that JSON carries."""
    with suppress(OverflowError):
        double = float(value)
        if double == value and double - double == 0:  # the second is NaN for infinities
            return int(value) if abs(value) <= SAFE_INTEGER and double.is_integer() else double
    raise StudyInvalid(f"{value} is not a number that a study can carry", help="Write a finite number below 2^53.")


def document(study: Study) -> dict[str, Any]:
    """The study as JSON values, its dictionary's content included; ordered mappings as lists."""
    out: dict[str, Any] = {f.name: getattr(study, f.name) for f in dataclasses.fields(study)}
    for part in ("lead", "cohort", "envelope", "privacy", "outputs", "agreements"):
        out[part] = dataclasses.asdict(out[part])
    # What came later than the format is left out where it says nothing, so that an older study keeps its digest.
    out["agreements"] = {k: v for k, v in out["agreements"].items() if v or k in ("ethics", "purpose", "expires")}
    out["format"] = FORMAT
    if study.stragglers == Stragglers():
        del out["stragglers"]  # a study that waits keeps the digest that it had before it could say so
    else:
        out["stragglers"] = dataclasses.asdict(study.stragglers)
    out["sites"] = [dataclasses.asdict(s) for s in study.sites]
    out["analyses"] = [{k: v for k, v in dataclasses.asdict(a).items() if v or k != "sites"} for a in study.analyses]
    out["variables"] = [{"name": n, "why": why} for n, why in study.variables.items()]
    out["derived"] = [_variable(d.variable) | {"expression": d.expression} for d in study.derived]
    for derived in out["derived"]:
        del derived["missing_codes"]
    out["dictionary"] = {
        "name": study.dictionary.name,
        "version": study.dictionary.version,
        "variables": [_variable(v) for v in study.dictionary.variables.values()],
    }
    plain: dict[str, Any] = _json(out)
    return plain


def undocument(value: Any) -> dict[str, Any]:
    """The inverse: a document with its ordered lists as mappings again, in the shape of a study file.

    Raises `StudyInvalid` where it is not such a document.
    """
    try:
        if value["format"] != FORMAT:
            raise StudyInvalid(
                f"the study's format is {value['format']!r}, not {FORMAT!r}", help="Use the Fivefold that made it."
            )
        out = {k: v for k, v in value.items() if k != "format"}
        out["variables"] = _pairs(value["variables"], "name", "why")
        out["derived"] = [d | {"codes": _pairs(d["codes"], "code", "label")} for d in value["derived"]]
        entries = value["dictionary"]["variables"]
        variables = {
            e["name"]: {k: v for k, v in e.items() if k != "name"} | {"codes": _pairs(e["codes"], "code", "label")}
            for e in entries
        }
        if len(variables) != len(entries):
            raise StudyInvalid("two variables of the dictionary share a name")
        out["dictionary"] = value["dictionary"] | {"variables": variables}
    except (KeyError, TypeError, AttributeError) as error:
        raise StudyInvalid("this is not a frozen study", help="Make one with `fivefold study freeze STUDY`.") from error
    return out


def _variable(variable: Variable) -> dict[str, Any]:
    out = {f.name: getattr(variable, f.name) for f in dataclasses.fields(variable)}
    return out | {"codes": [{"code": c, "label": label} for c, label in variable.codes.items()]}


def _pairs(entries: Any, key: str, value: str) -> dict[str, Any]:
    if any(set(e) != {key, value} for e in entries) or len({e[key] for e in entries}) != len(entries):
        raise StudyInvalid(f"entries of {key} and {value} are wrong or double")
    return {e[key]: e[value] for e in entries}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    return value
