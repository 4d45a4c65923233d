"""A first study file and dictionary from a few answers, with comments that say what goes where."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from typing import Any

from fivefold.errors import StudyInvalid
from fivefold.study.expression_syntax import suggestion


@dataclass(frozen=True)
class Question:
    """What is asked, and the answer that `--yes` gives."""

    key: str
    text: str
    default: str


@dataclass(frozen=True)
class Answers:
    """Everything that a first study file is made of."""

    title: str
    question: str
    lead: str
    organisation: str
    lead_key: str
    sites: tuple[str, ...]
    person: str
    ethics: str
    purpose: str
    expires: str


def questions(today: date) -> tuple[Question, ...]:
    """What `fivefold study new` asks, in order."""
    return (
        Question("title", "Title of the study", "A first federated study"),
        Question("question", "The question it answers", "How do age and sex relate to the outcome?"),
        Question("lead", "Who leads it (name)", "Name of the lead"),
        Question("organisation", "The lead's organisation", "Organisation of the lead"),
        Question("lead_key", "The lead's public key (64 hex digits; empty: later)", ""),
        Question("sites", "Short names of the sites, separated by commas (three or more)", "north, south, east"),
        Question("person", "Name of the person identifier", "person_id"),
        Question("ethics", "Reference of the ethics approval", "to be filled in"),
        Question("purpose", "Purpose, as in the agreements", "Research"),
        Question("expires", "Last day of the study", f"{today.year + 2}-12-31"),
    )


def answers_of(given: Mapping[str, Any], today: date) -> Answers:
    """Answers from a mapping, the rest by default. Raises `StudyInvalid` for an unknown key or an answer of the wrong kind."""
    known = [f.name for f in fields(Answers)]
    for key in given:
        if key not in known:
            raise StudyInvalid(f"there is no question {key!r}", help=suggestion(str(key), known))
    out: dict[str, Any] = {q.key: q.default for q in questions(today)}
    for key, value in given.items():
        if isinstance(value, date):
            value = value.isoformat()
        if key == "sites" and isinstance(value, (list, tuple)):
            value = ", ".join(str(v) for v in value)
        if not isinstance(value, str):
            raise StudyInvalid(f"the answer to {key!r} is not a text", help="Put it in quotes.")
        out[key] = value.strip()
    sites = tuple(s.strip() for s in re.split(r"[,\s]+", out["sites"]) if s.strip())
    return Answers(**(out | {"sites": sites}))


def skeleton(answers: Answers) -> dict[str, str]:
    """The files by name: `study.yaml` and `dictionary.yaml`, which pass `fivefold study check` but for the keys."""
    a = answers
    key = a.lead_key or "<the lead's key: fivefold keys show lead.key>"
    sites = "\n".join(
        f"  - name: {_text(s)}\n    organisation: {_text(f'Organisation of {s}')}\n"
        f"    public_key: {_text(f'<the key of {s}: fivefold keys show node.key>')}"
        for s in a.sites
    )
    study = STUDY.format(
        title=_text(a.title),
        question=_text(a.question),
        lead=_text(a.lead),
        organisation=_text(a.organisation),
        key=_text(key),
        sites=sites,
        person=a.person,
        ethics=_text(a.ethics),
        purpose=_text(a.purpose),
        expires=_text(a.expires),
    )
    return {"study.yaml": study, "dictionary.yaml": DICTIONARY}


def _text(value: str) -> str:
    """A YAML text that means itself, whatever it holds."""
    return json.dumps(value, ensure_ascii=False)


STUDY = """\
# What is to be done, by whom, on which persons, and under which agreements. `fivefold study check` names every fault.
# Editors complete this file after: fivefold study schema > study.schema.json
# yaml-language-server: $schema=study.schema.json

title: {title}
question: {question}

lead:
  name: {lead}
  organisation: {organisation}
  public_key: {key}

# Three sites or more: of two, each would learn the other's numbers by subtraction.
sites:
{sites}

dictionary: dictionary.yaml     # what each variable means; sites map their own columns onto it
person: {person}               # every count is of persons, not of rows

cohort:
  include:
    - age >= 18
  exclude: []

# Each variable used, and why it is needed.
variables:
  age: described, and a covariate
  sex: described, and a covariate
  outcome: what is explained

# derived:
#   - name: age_group
#     label: Age group
#     type: category
#     codes: {{"0": below 50, "1": 50 to 64, "2": 65 and above}}
#     expression: cut(age, 50, 65)

analyses:
  - name: description
    method: statistics
    variables: [age, sex, outcome]
#  - name: model
#    method: glm
#    formula: outcome ~ age + sex

# envelope:                     # within this the lead may vary an analysis without a new approval
#   variables: [age, sex, outcome]
#   methods: [statistics]
#   subgroups: ['sex == "female"']
#   fits: 5

privacy:
  minimum_sites: 3              # fewer never open a sum
  minimum_persons: 5            # no total over fewer persons is shown
  max_rows_per_site: 1000000    # public bound; the exactness of the sum follows from it

outputs:
  planned:
    - Table of the cohort

agreements:
  ethics: {ethics}
  purpose: {purpose}
  expires: {expires}
"""

DICTIONARY = """\
# The shared phenotype dictionary. Units as pint reads them; numbers need a range, since the exactness of sums follows from it.
# yaml-language-server: $schema=dictionary.schema.json

name: first
version: "1"

variables:
  age:
    label: Age at inclusion
    type: number
    unit: year
    minimum: 0
    maximum: 120
  sex:
    label: Sex
    type: category
    codes: {"f": female, "m": male}
    missing_codes: ["u"]
  outcome:
    label: The outcome occurred
    type: boolean
"""
