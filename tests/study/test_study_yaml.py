"""Reading study files: what is right gives the study, and each kind of fault its line and what to write instead."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.errors import StudyInvalid, StudyNotFound
from fivefold.study import consistency, yaml

LEAD, NORTH, SOUTH, EAST = (keys.public_of(bytes([i]) * 32).hex() for i in range(1, 5))

STUDY = f"""\
title: Survival in lung cancer
question: Does performance status predict survival?
lead:
  name: Ada Lovelace
  organisation: University of Somewhere
  public_key: {LEAD}
  orcid: 0000-0002-1825-0097
sites:
  - name: north
    organisation: North Hospital
    public_key: {NORTH}
  - {{name: south, public_key: {SOUTH}}}
  - {{name: east, public_key: {EAST}}}
dictionary: dictionary.yaml
person: patient
cohort:
  include:
    - age >= 18
  exclude: ['sex == "u2"']
  index_date: seen
variables:
  age: an established risk factor
  sex: survival differs
  time: outcome
  status: outcome
  seen: time counts from it
derived:
  - name: age_group
    label: Age group
    type: category
    codes: {{0: young, 1: middle, 2: old}}
    expression: cut(age, 50, 65)
  - name: decades
    label: Age in decades
    type: number
    minimum: 0
    maximum: 12
    expression: age / 10
analyses:
  - name: survival
    method: cox
    formula: Surv(time, status) ~ age + sex
    subgroup: decades < 10
    options: {{ties: efron, tolerance: 1.0e-9, iterations: 20.0}}
  - name: description
    method: statistics
    variables: [age, age_group]
envelope:
  variables: [age, sex]
  methods: [statistics]
  subgroups: ['sex == "female"']
  fits: 5
privacy:
  minimum_sites: 3
  minimum_persons: 10
  colluders: 0
outputs:
  planned: [Table of the cohort]
agreements:
  ethics: EK 1/2026
  purpose: research
  expires: 2031-12-31
seed: 7
"""

DICTIONARY = """\
name: lung
version: "1"
variables:
  age: {label: Age, type: number, unit: year, minimum: 0, maximum: 120}
  sex:
    label: Sex
    type: category
    codes: {2: female, 1: male, u2: other}
    missing_codes: [9]
  time: {label: Time, type: integer, unit: day, minimum: 0, maximum: 5000}
  status: {label: Dead, type: boolean}
  seen: {label: First seen, type: date, minimum: 1990-01-01}
  note: {label: Note, type: text}
  weight: {label: Weight, type: number, unit: kg}
"""


def written(folder: Path, study: str = STUDY, dictionary: str = DICTIONARY) -> Path:
    (folder / "study.yaml").write_text(study, encoding="utf-8")
    (folder / "dictionary.yaml").write_text(dictionary, encoding="utf-8")
    return folder / "study.yaml"


def test_a_study_is_read_whole(tmp_path: Path) -> None:
    study = yaml.load(written(tmp_path))
    assert [s.name for s in study.sites] == ["north", "south", "east"]
    assert study.agreements.expires == "2031-12-31"
    sex = study.dictionary["sex"]
    assert list(sex.codes) == ["2", "1", "u2"], "the order of codes is the file's: the first is the reference"
    assert sex.missing_codes == ("9",)
    assert study.dictionary["seen"].minimum == (date(1990, 1, 1) - date(1970, 1, 1)).days
    assert study.analyses[0].options == {"iterations": 20, "ties": "efron", "tolerance": 1e-9}
    assert list(study.analyses[0].options) == ["iterations", "ties", "tolerance"]
    assert study.derived[0].variable.levels == ("0", "1", "2")
    assert study.privacy.minimum_persons == 10
    assert study.phenotypes["decades"].maximum == 12
    assert consistency.unready(study, date(2026, 1, 1)) == []


def test_an_inline_dictionary_is_the_same(tmp_path: Path) -> None:
    apart = yaml.load(written(tmp_path))
    inside = "dictionary:\n" + "".join(f"  {line}\n" for line in DICTIONARY.splitlines())
    assert yaml.load(written(tmp_path, STUDY.replace("dictionary: dictionary.yaml\n", inside))) == apart


IN_STUDY = [
    # what is written, in place of what; the words of the fault; what to write instead
    ("titel: Survival", "title: Survival", "unknown key 'titel'", "'title'"),
    ("  nam: Ada Lovelace", "  name: Ada Lovelace", "unknown key 'nam'", "'name'"),
    ("    method: coxx\n    metod: cox", "    method: cox", "unknown key 'metod'", "'method'"),
    ("    labl: Age group", "    label: Age group", "unknown key 'labl'", "'label'"),
    ("  minimum_site: 3", "  minimum_sites: 3", "unknown key 'minimum_site'", "'minimum_sites'"),
    ("title: [a]", "title: Survival in lung cancer", "title: a text is expected, not a list", "Write text"),
    ("title: 5", "title: Survival in lung cancer", "title: a text is expected, not 5", "in quotes"),
    ("title: ''", "title: Survival in lung cancer", "title: a text is expected, not nothing", "Write something"),
    ('title: "a\\u001b[2J"', "title: Survival in lung cancer", "control character", "plain text"),
    ("question:", "question: Does performance status predict survival?", "question: a text is expected, not nothing", "text"),
    ("  orcid: 12", "  orcid: 0000-0002-1825-0097", "orcid: a text is expected, not 12", "text"),
    ("  orcid: '12'", "  orcid: 0000-0002-1825-0097", "not an ORCID", "0000-0002-1825-0097"),
    ("  public_key: abc", f"  public_key: {LEAD}", "the lead is not 64 hex digits", "fivefold keys show"),
    (f"  public_key: {LEAD.upper()}", f"  public_key: {LEAD}", "capitals", "as `fivefold keys show"),
    (f"    public_key: {LEAD}", f"    public_key: {NORTH}", "same public key as the lead", "of its own"),
    (
        f"  - {{name: North, public_key: {SOUTH}}}",
        f"  - {{name: south, public_key: {SOUTH}}}",
        "two sites are called",
        "own name",
    ),
    (f"  - {{name: a/b, public_key: {SOUTH}}}", f"  - {{name: south, public_key: {SOUTH}}}", "'a/b' is not a name", "letters"),
    ("person: 5 apples", "person: patient", "'5 apples' is not a name", "letters"),
    ("    - agee >= 18", "    - age >= 18", "no variable 'agee'", "'age'"),
    ("    - weight >= 18", "    - age >= 18", "'weight' is used, but nothing says why", "weight: why"),
    ("    - age + 18", "    - age >= 18", "a number, not a condition", "> 0"),
    ("    - age => 18", "    - age >= 18", "`=>`", "`>=`"),
    ("  include: age >= 18", "  include:\n    - age >= 18", "include: a list is expected, not 'age >= 18'", "`- `"),
    ("  index_date: age", "  index_date: seen", "'age' is a number, not a date", "type: date"),
    ("  index_date: sean", "  index_date: seen", "no variable 'sean'", "'seen'"),
    ("  agee: an established", "  age: an established", "the dictionary has no variable 'agee'", "'age'"),
    ("  weight: why\n  sex: survival", "  sex: survival", "'weight' has no range", "`minimum` and `maximum`"),
    ("  sex:", "  sex: survival differs", "sex: a text is expected, not nothing", "text"),
    ("  - name: age\n    label: Age group", "  - name: age_group\n    label: Age group", "'age' exists already", "its own"),
    ("    expression: cut(age, 50)", "    expression: cut(age, 50, 65)", "3 codes", "2 edges"),
    ("    expression: cut(age, 50, 65", "    expression: cut(age, 50, 65)", "cannot be read", "Write"),
    ("    expression: decades / 2", "    expression: cut(age, 50, 65)", "no variable 'decades'", "age"),
    ("    minimum: 13", "    minimum: 0", "range of 'decades' is empty", "smaller one first"),
    ("  - name: time ratio", "  - name: survival", "'time ratio' is not a name", "letters"),
    ("  - name: Survival", "  - name: description", "two analyses are called", "own name"),
    ("    variables: [age, agegroup]", "    variables: [age, age_group]", "no variable 'agegroup'", "'age_group'"),
    ("    variables: age", "    variables: [age, age_group]", "variables: a list is expected, not 'age'", "`- `"),
    ("    subgroup: decade < 10", "    subgroup: decades < 10", "no variable 'decade'", "'decades'"),
    (
        "    options: 3",
        "    options: {ties: efron, tolerance: 1.0e-9, iterations: 20.0}",
        "options: a mapping is expected",
        "key: value",
    ),
    ("  variables: [age, sexx]", "  variables: [age, sex]", "no variable 'sexx'", "'sex'"),
    ("  subgroups: ['sex == \"f\"']", "  subgroups: ['sex == \"female\"']", "no code or label 'f'", "female"),
    ("  fits: -1", "  fits: 5", "-1 fits", "smaller"),
    ("  fits: 2.5", "  fits: 5", "fits: a whole number is expected, not 2.5", "whole number"),
    ("  fits: true", "  fits: 5", "fits: a whole number is expected, not True", "whole number"),
    ("  minimum_sites: 2", "  minimum_sites: 3", "subtracting its own from the sum", "3 or more"),
    ("  minimum_sites: 1", "  minimum_sites: 3", "that site's own number", "3 or more"),
    ("  minimum_sites: 4", "  minimum_sites: 3", "the study has 3 sites", "3 or less"),
    ("  minimum_persons: 0", "  minimum_persons: 10", "minimum_persons is 0", "1 or more"),
    ("  colluders: 2", "  colluders: 0", "colluders", "Lower colluders"),
    ("  threshold: 1", "  colluders: 0", "threshold of 1", "threshold"),
    ("  honest: 1", "  colluders: 0", "honest is 1", "2 or more"),
    ("  mode: plain", "  colluders: 0", "mode cannot be 'plain'", "secure_sum"),
    ("  adversary: activ", "  colluders: 0", "adversary cannot be 'activ'", "'active'"),
    (
        "  differential_privacy: {unit: person, epsilon: 1, delta: 1e-2, noise_multiplier: 1}",
        "  colluders: 0",
        "may fail for one in 100",
        "0.0001 or less",
    ),
    ("  expires: 31.12.2031", "  expires: 2031-12-31", "'31.12.2031' is not a day", "2027-12-31"),
    ("  expires: '2031-02-31'", "  expires: 2031-12-31", "'2031-02-31' is not a day", "2027-12-31"),
    ("  expires: 2031-12-31T10:00:00Z", "  expires: 2031-12-31", "a day is expected, not a time", "2027-12-31"),
    ("seed: -1", "seed: 7", "seed is -1", "0"),
    ("seed: .nan", "seed: 7", "nan is not a finite number", "finite"),
    ("seed: 18014398509481984", "seed: 7", "seed is 18014398509481984", "up to"),
    ("dictionary: [1]", "dictionary: dictionary.yaml", "neither a path nor a dictionary", ""),
]

IN_DICTIONARY = [
    ("nam: lung", "name: lung", "unknown key 'nam'", "'name'"),
    ("version: 1", 'version: "1"', "version: a text is expected, not 1", "in quotes"),
    ("    labl: Sex", "    label: Sex", "unknown key 'labl'", "'label'"),
    ("    type: categorical", "    type: category", "type cannot be 'categorical'", "'category'"),
    ("    codes: {1: male}", "    codes: {2: female, 1: male, u2: other}", "two codes or more", "codes:"),
    ("    codes: {2: male, 1: male}", "    codes: {2: female, 1: male, u2: other}", "share the label 'male'", "own label"),
    ("    codes: {2: 5, 1: male}", "    codes: {2: female, 1: male, u2: other}", "a text is expected, not 5", "quotes"),
    ("    codes: {true: a, 2: b}", "    codes: {2: female, 1: male, u2: other}", "the key True is not a text", "quotes"),
    ("    codes: {01: a, 2: b}", "    codes: {2: female, 1: male, u2: other}", "the code 01 would lose its zero", '"01"'),
    ("    missing_codes: [09]", "    missing_codes: [9]", "the code 09 would lose its zero", '"09"'),
    ("    missing_codes: [1]", "    missing_codes: [9]", "both a value and missing", "Take one out"),
    ("    minimum: 3\n    type: category", "    type: category", "a category has no range", "Take it out"),
    (
        "  age: {label: Age, type: number, minimum: 9, maximum: 2}",
        "  age: {label: Age, type: number, unit: year, minimum: 0, maximum: 120}",
        "range of 'age' is empty",
        "smaller one first",
    ),
    (
        "  age: {label: Age, type: number, minimum: low, maximum: 120}",
        "  age: {label: Age, type: number, unit: year, minimum: 0, maximum: 120}",
        "minimum: a number is expected, not 'low'",
        "without quotes",
    ),
    (
        "  age: {label: Age, type: number, minimum: 0, maximum: .inf}",
        "  age: {label: Age, type: number, unit: year, minimum: 0, maximum: 120}",
        "inf is not a finite number",
        "finite",
    ),
    (
        "  time: {label: Time, type: integer, minimum: 0.5, maximum: 9}",
        "  time: {label: Time, type: integer, unit: day, minimum: 0, maximum: 5000}",
        "an integer with a broken range",
        "whole",
    ),
    ("  status: {label: Dead, type: boolean, codes: {1: y, 0: n}}", "  status: {label: Dead, type: boolean}", "0 and 1", "no"),
    ("  log: {label: Note, type: text}", "  note: {label: Note, type: text}", "a word of the formula language", "log_value"),
    ("  no te: {label: Note, type: text}", "  note: {label: Note, type: text}", "'no te' is not a name", "letters"),
    ("  note: {label: N, type: text, codes: {1: a}}", "  note: {label: Note, type: text}", "text 'note' has codes", "category"),
    ("  note: {type: text}", "  note: {label: Note, type: text}", "the key 'label' is missing", "label:"),
    ("  note:", "  note: {label: Note, type: text}", "note: a mapping is expected, not nothing", "key: value"),
]


def line_of(text: str, fragment: str) -> int:
    """The line of the fragment's last line, where a fragment of several lines has its fault, or of its only one."""
    return text[: text.index(fragment)].count("\n") + 1


@pytest.mark.parametrize(("new", "old", "words", "instead"), IN_STUDY)
def test_a_fault_in_the_study(tmp_path: Path, new: str, old: str, words: str, instead: str) -> None:
    assert STUDY.count(old) == 1 or STUDY.startswith(old), "the table names a fragment that is not unique"
    text = STUDY.replace(old, new, 1)
    _expect(yaml.read(written(tmp_path, text)), "study.yaml", text, new, words, instead)


@pytest.mark.parametrize(("new", "old", "words", "instead"), IN_DICTIONARY)
def test_a_fault_in_the_dictionary(tmp_path: Path, new: str, old: str, words: str, instead: str) -> None:
    assert DICTIONARY.count(old) == 1
    text = DICTIONARY.replace(old, new, 1)
    _expect(yaml.read(written(tmp_path, STUDY, text)), "dictionary.yaml", text, new, words, instead)


def _expect(reading: yaml.Reading, file: str, text: str, new: str, words: str, instead: str) -> None:
    found = [f for f in reading.faults if words in f.what]
    assert found, f"not among {[str(f) for f in reading.faults]}"
    (fault,) = found
    first = line_of(text, new)
    assert fault.file == file
    assert first <= fault.line <= first + new.count("\n")
    assert instead in fault.instead
    assert str(fault).startswith(f"{file}, line {fault.line}: ")
    with pytest.raises(StudyInvalid) as caught:
        reading.enforced()
    assert words in caught.value.message


def test_all_faults_are_named_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = STUDY
    for new, old in [
        ("titel: x\ntitle: Survival", "title: Survival"),
        ("    - agee >= 18", "    - age >= 18"),
        ("  minimum_sites: 2\n  adversary: activ", "  minimum_sites: 3"),
        ("  expires: never", "  expires: 2031-12-31"),
    ]:
        text = text.replace(old, new, 1)
    reading = yaml.read(written(tmp_path, text.replace("  expires: never", "  expires: 2031-12-31")))
    words = ["titel", "agee", "minimum_sites", "activ"]
    assert len(reading.faults) == len(words)
    assert all(w in f.what for w, f in zip(words, reading.faults, strict=True))
    assert [f.line for f in reading.faults] == sorted(f.line for f in reading.faults)
    with pytest.raises(StudyInvalid, match="the study has 4 faults"):
        reading.enforced()
    assert len(yaml.read(written(tmp_path, text)).faults) >= 3


def test_two_sites_are_refused_with_the_reason(tmp_path: Path) -> None:
    text = STUDY.replace(f"  - {{name: east, public_key: {EAST}}}\n", "")
    with pytest.raises(
        StudyInvalid, match=r"study\.yaml, line 8: a study needs three sites or more: with two sites each would learn"
    ):
        yaml.load(written(tmp_path, text))


@pytest.mark.parametrize(
    "key", ["title", "question", "lead", "sites", "dictionary", "person", "variables", "analyses", "agreements"]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    lines = STUDY.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
    stop = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    reading = yaml.read(written(tmp_path, "".join(lines[:start] + lines[stop:])))
    assert f"the key {key!r} is missing" in [f.what for f in reading.faults]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "study.yaml, line 1: this is not YAML"),
        ("title: a\ntitle: b\n", "line 2: key 'title' is written twice"),
        ("a: &x 1\nb: *x\n", "anchors and aliases"),
        ("a: !!python/object:os.system x\n", "tags"),
        ("", "a study file is a mapping"),
        ("- a\n", "a study file is a mapping"),
        ("title: \ud800", "UTF-8"),
    ],
)
def test_what_is_no_study_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StudyInvalid, match=words):
        yaml.load(path)


def test_codes_in_quotes_keep_their_zeros(tmp_path: Path) -> None:
    text = DICTIONARY.replace("{2: female, 1: male, u2: other}", "{'01': a, \"02\": b, 10: c, 0: d}").replace(
        "[9]", "['09', 99]"
    )
    study = STUDY.replace("  exclude: ['sex == \"u2\"']\n", "").replace("female", "a")
    sex = yaml.load(written(tmp_path, study, text)).dictionary["sex"]
    assert (sex.levels, sex.missing_codes) == (("01", "02", "10", "0"), ("09", "99"))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound, match="there is no study file"):
        yaml.load(tmp_path / "absent.yaml")
    with pytest.raises(StudyNotFound, match="is a folder"):
        yaml.load(tmp_path)
    path = written(tmp_path)
    (tmp_path / "dictionary.yaml").unlink()
    with pytest.raises(StudyNotFound, match=r"study\.yaml, line 14: there is no dictionary 'dictionary\.yaml'"):
        yaml.load(path)


def test_placeholders_and_a_past_expiry_are_open_not_wrong(tmp_path: Path) -> None:
    text = STUDY.replace(LEAD, "<later>").replace(f"    public_key: {NORTH}\n", "")
    study = yaml.load(written(tmp_path, text))
    found = consistency.unready(study, date(2032, 1, 1))
    assert [f.where for f in found] == [("lead", "public_key"), ("sites", 0, "public_key"), ("agreements", "expires")]
    assert "expired on 2031-12-31" in found[-1].what
    assert consistency.unready(yaml.load(written(tmp_path)), date(2031, 12, 31)) == []
