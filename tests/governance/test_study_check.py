"""Check as a whole: each analysis as its own method reads it, what is still open, what is worth knowing; and the estimate."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.errors import StudyInvalid
from fivefold.governance import study_check
from fivefold.governance.study_estimate import NUMBER_BYTES, estimate
from fivefold.governance.threats import threats
from fivefold.study.new import answers_of, skeleton

TODAY = date(2026, 6, 1)
PUBLIC = [keys.public_of(bytes([i]) * 32).hex() for i in range(1, 5)]


def study(folder: Path, *changes: tuple[str, str]) -> Path:
    """The study that `fivefold study new --yes` writes, with keys, a model, and changes."""
    files = skeleton(answers_of({"lead_key": PUBLIC[0]}, TODAY))
    text = files["study.yaml"].replace("#  - name: model", "  - name: model")
    text = text.replace("#    method: glm", "    method: glm").replace("#    formula:", "    formula:")
    text = text.replace(
        "    formula: outcome ~ age + sex\n", "    formula: outcome ~ age + sex\n    options: {family: binomial}\n"
    )
    for name, key in zip(("north", "south", "east"), PUBLIC[1:], strict=True):
        text = text.replace(f'"<the key of {name}: fivefold keys show node.key>"', key)
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    (folder / "dictionary.yaml").write_text(files["dictionary.yaml"], encoding="utf-8")
    return folder / "study.yaml"


def test_a_new_study_is_in_order(tmp_path: Path) -> None:
    checked = study_check.check(study(tmp_path), today=TODAY)
    assert (checked.faults, checked.open, checked.notes) == ((), (), ())
    assert checked.enforced(ready=True).analyses[1].method == "glm"


def test_wide_models_are_on_trust_and_small_ones_and_statistics_are_not(tmp_path: Path) -> None:
    """The breast example trains small models in one study, and counts and fits in the other."""
    folder = Path(study_check.__file__).parents[2] / "examples" / "breast"
    text = (folder / "training.yaml").read_text(encoding="utf-8")
    wide = re.sub(r"hidden: \[\d+\]", "hidden: [4000]", text)
    assert wide != text
    (tmp_path / "dictionary.yaml").write_bytes((folder / "dictionary.yaml").read_bytes())
    (tmp_path / "wide.yaml").write_text(wide, encoding="utf-8")
    for path, expected in ((folder / "study.yaml", False), (folder / "training.yaml", False), (tmp_path / "wide.yaml", True)):
        checked = study_check.check(path, today=TODAY)
        assert any("on trust" in note.what for note in checked.notes) == expected
        assert checked.reading.study is not None
        said = [line for threat in threats(checked.reading.study) for line in threat.open]
        assert any("taken on trust" in line for line in said) == expected


def test_more_sites_than_the_complete_graph_takes(tmp_path: Path) -> None:
    rows = "".join(f"  - {{name: s{i}, public_key: {keys.public_of(i.to_bytes(32, 'big')).hex()}}}\n" for i in range(10, 136))
    checked = study_check.check(study(tmp_path, ("\nsites:\n", f"\nsites:\n{rows}")), today=TODAY)
    (fault,) = checked.faults
    assert "129 sites are more than the 128 of a secure sum" in fault.what
    assert "sparse graph" in fault.what


def test_a_new_study_without_keys_is_in_order_but_open(tmp_path: Path) -> None:
    for name, text in skeleton(answers_of({}, TODAY)).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    checked = study_check.check(tmp_path / "study.yaml", today=TODAY)
    assert checked.faults == ()
    assert len(checked.open) == 4
    assert checked.enforced().title == "A first federated study"
    with pytest.raises(StudyInvalid, match="4 faults"):
        checked.enforced(ready=True)


@pytest.mark.parametrize(
    ("old", "new", "words", "instead"),
    [
        ("    method: glm", "    method: glmm", "no method called 'glmm'", "Did you mean 'glm'?"),
        ("    formula: outcome ~ age + sex", "    formula: outcome ~ age + sec", "no variable 'sec'", "Did you mean 'sex'?"),
        ("    formula: outcome ~ age + sex", "    formula: outcome ~ age +", "in the formula", "Write the name"),
        ("    options: {family: binomial}", "    options: {famly: binomial}", "no option 'famly'", "'family'"),
        ("    options: {family: binomial}", "    options: {family: binomal}", "'binomal'", "binomial"),
        ("  sex: described, and a covariate\n", "", "nothing says why", "sex: why it is needed"),
    ],
)
def test_an_analysis_that_its_method_cannot_read(tmp_path: Path, old: str, new: str, words: str, instead: str) -> None:
    path = study(tmp_path, (old, new))
    found = [f for f in study_check.check(path, today=TODAY).faults if words in f.what]
    assert found
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(f.file == "study.yaml" for f in found)
    if new:
        assert new in lines[found[0].line - 1]
    assert instead in found[0].instead
    assert found[0].what.count("analysis 'model'") <= 1


def test_an_unknown_method_in_the_envelope(tmp_path: Path) -> None:
    path = study(tmp_path, ("privacy:\n", "envelope: {variables: [age], methods: [coxx], fits: 1}\nprivacy:\n"))
    (fault,) = study_check.check(path, today=TODAY).faults
    assert "no method called 'coxx'" in fault.what
    assert fault.instead == "Did you mean 'cox'?"


def test_what_nothing_uses_is_noted(tmp_path: Path) -> None:
    path = study(
        tmp_path, ("variables: [age, sex, outcome]\n  - name", "variables: [age, outcome]\n  - name"), ("~ age + sex", "~ age")
    )
    (note,) = study_check.check(path, today=TODAY).notes
    assert "nothing uses 'sex'" in note.what


def test_an_envelope_without_fits_is_noted(tmp_path: Path) -> None:
    path = study(tmp_path, ("privacy:\n", "envelope: {variables: [age], methods: [glm]}\nprivacy:\n"))
    (note,) = study_check.check(path, today=TODAY).notes
    assert "allows no fits" in note.what


def test_an_expired_study_is_open(tmp_path: Path) -> None:
    (late,) = study_check.check(study(tmp_path), today=date(2030, 1, 1)).open
    assert "expired on 2028-12-31" in late.what


def test_estimate_adds_up(tmp_path: Path) -> None:
    bounded = estimate(study_check.check(study(tmp_path), today=TODAY).enforced(), trip_seconds=1.0)
    assert bounded.rounds == sum(c.rounds for c in bounded.analyses) > 0
    numbers = sum(c.rounds * c.numbers_per_round for c in bounded.analyses)
    assert numbers * NUMBER_BYTES < bounded.sent_by_site < bounded.received_by_site
    assert bounded.received_by_site - bounded.sent_by_site == 2 * numbers * NUMBER_BYTES
    assert bounded.total_bytes == 3 * (bounded.sent_by_site + bounded.received_by_site)
    assert bounded.seconds > 3 * bounded.rounds
    assert (bounded.epsilon, bounded.threshold, bounded.dropouts, bounded.colluders) == (None, 3, 0, 1)


def test_estimate_of_two_trips_is_quicker(tmp_path: Path) -> None:
    path = study(tmp_path, ("privacy:\n", "privacy:\n  adversary: curious\n"))
    curious = estimate(study_check.check(path, today=TODAY).enforced())
    active = estimate(study_check.check(study(tmp_path), today=TODAY).enforced())
    assert curious.seconds < active.seconds
