"""`study check` and `study estimate` of a study with differential privacy: what does not fit, with what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run as cli
from fivefold.cli.study_page import estimate_page, promise_lines
from fivefold.errors import StudyInvalid
from fivefold.governance import study_check
from fivefold.governance.study_estimate import estimate, what_if, what_if_figure
from fivefold.privacy.dp.accounting import spent
from fivefold.results.plots import draw
from fivefold.study.consistency import thresholds
from fivefold.study.new import answers_of, skeleton

PUBLIC = [keys.public_of(bytes([i]) * 32).hex() for i in range(1, 5)]


def study(folder: Path, model: bool = False, rows: int = 1000, **private: object) -> Path:
    files = skeleton(answers_of({"lead_key": PUBLIC[0]}, study_check.date(2026, 6, 1)))
    text = files["study.yaml"]
    if model:
        text = text.replace("#  - name: model", "  - name: model").replace("#    method: glm", "    method: kaplan_meier")
        text = text.replace("#    formula: outcome ~ age + sex", "    formula: Surv(age, outcome) ~ sex")
    for name, key in zip(("north", "south", "east"), PUBLIC[1:], strict=True):
        text = text.replace(f'"<the key of {name}: fivefold keys show node.key>"', key)
    said = {"unit": "person", "epsilon": 3.0, "delta": "1.0e-6", "noise_multiplier": 2.0} | private
    lines = "".join(f"    {k}: {v}\n" for k, v in said.items())
    text = re.sub(r"  max_rows_per_site:.*\n", "", text)
    text = text.replace("privacy:\n", f"privacy:\n  max_rows_per_site: {rows}\n  differential_privacy:\n{lines}", 1)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    (folder / "dictionary.yaml").write_text(files["dictionary.yaml"], encoding="utf-8")
    return folder / "study.yaml"


def faults(path: Path) -> list[tuple[str, str]]:
    return [(f.what, f.instead) for f in study_check.check(path).faults]


def test_a_study_with_noise_is_in_order(tmp_path: Path) -> None:
    checked = study_check.check(study(tmp_path))
    assert (checked.faults, checked.notes) == ((), ())
    found = checked.enforced()
    # No drop-out is declared, so all three sites must be in every sum.
    assert thresholds(found).survivors_needed == 3
    assert any(
        "Every answer carries noise" in line and "ε = 3 at δ = 1e-06 per person" in line for line in promise_lines(found)
    )


@pytest.mark.parametrize(
    ("private", "words", "instead"),
    [
        ({"epsilon": 0.5}, "1 questions with a noise multiplier of 2 cost ε = ", "Write noise_multiplier: "),
        ({"unit": "site"}, "bounds what one person changes, not what one site does", "Write unit: person."),
        ({"delta": 0.01}, "may fail for one in 100", "Write 0.0001 or less"),
        ({"delta": 1.5}, "delta is a probability", "1e-6"),
        ({"epsilon": 1e6}, "promises nothing", "Write 1"),
        ({"noise_multiplier": 0}, "not above 0", "study estimate"),
        ({"dropouts": 1}, "cannot be missing", "Write 0 to 0."),
    ],
)
def test_what_does_not_fit(tmp_path: Path, private: dict[str, object], words: str, instead: str) -> None:
    found = faults(study(tmp_path, **private))
    assert any(words in what and instead in why for what, why in found), found


def test_the_multiplier_that_is_named_is_enough(tmp_path: Path) -> None:
    ((what, instead),) = faults(study(tmp_path, epsilon=0.5))
    wanted = float(instead.removeprefix("Write noise_multiplier: "))
    assert "epsilon is 0.5" in what
    assert faults(study(tmp_path, epsilon=0.5, noise_multiplier=wanted)) == []
    assert faults(study(tmp_path, epsilon=0.5, noise_multiplier=wanted * 0.99)) != []


def test_a_method_without_sensitivities_is_refused(tmp_path: Path) -> None:
    assert any(
        "kaplan_meier cannot run with differential privacy" in what and "statistics" in why
        for what, why in faults(study(tmp_path, model=True))
    )


def test_a_delta_near_one_over_the_persons_is_worth_a_note(tmp_path: Path) -> None:
    (note,) = study_check.check(study(tmp_path, rows=1_000_000)).notes
    assert "3,000,000" in note.what


def test_the_estimate_tells_epsilon_and_draws_its_price(tmp_path: Path) -> None:
    path = study(tmp_path)
    bounded = estimate(study_check.check(path).enforced())
    assert bounded.epsilon == pytest.approx(spent(1, 2.0, 1e-6))
    text = estimate_page(bounded)
    assert (
        "1 rounds with a noise multiplier of 2 cost ε = 2.6" in text.replace("2.61", "2.6").replace("2.62", "2.6")
        or "cost ε = " in text
    )
    for words in ("the least noise_multiplier for this cap", "ε = 1: ", "ε = 3: ", "ε = 10: ", "what if"):
        assert words in text
    table = what_if(bounded)
    assert table is not None
    # More rounds cost more, more noise costs less.
    cells = {(n, z): e for n, z, e in table.rows}
    rounds, multipliers = sorted({n for n, _ in cells}), sorted({z for _, z in cells})
    assert all(cells[rounds[0], z] < cells[rounds[-1], z] for z in multipliers)
    assert all(cells[n, multipliers[0]] > cells[n, multipliers[-1]] for n in rounds)
    for kind in ("svg", "png"):
        assert cli(["study", "estimate", str(path), "--plot", str(tmp_path / f"epsilon.{kind}")]) == 0
        assert (tmp_path / f"epsilon.{kind}").read_bytes() == draw(*what_if_figure(table))[kind]
    assert cli(["study", "estimate", str(path), "--plot", str(tmp_path / "epsilon.gif")]) == StudyInvalid.exit_code
    assert not (tmp_path / "epsilon.gif").exists()


def test_an_exact_study_has_no_what_if(tmp_path: Path) -> None:
    path = study(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"  differential_privacy:\n(    .*\n)+", "", text), encoding="utf-8")
    bounded = estimate(study_check.check(path).enforced())
    assert (bounded.epsilon, bounded.noise, what_if(bounded)) == (None, None, None)
    assert "sums are exact" in estimate_page(bounded)
    assert cli(["study", "estimate", str(path), "--plot", str(tmp_path / "epsilon.svg")]) == StudyInvalid.exit_code
    assert not (tmp_path / "epsilon.svg").exists()


def test_check_and_estimate_say_what_an_adaptive_clip_costs(tmp_path: Path) -> None:
    breast = Path(__file__).parents[2] / "examples" / "breast"
    (tmp_path / "dictionary.yaml").write_bytes((breast / "dictionary.yaml").read_bytes())
    text = (breast / "private.yaml").read_text(encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(re.sub(r"      clip: \d.*\n", "      clip: adaptive\n      clip_quantile: 0.3\n", text), encoding="utf-8")
    checked = study_check.check(path)
    assert checked.faults == ()
    assert any("follows the quantile 0.3 of the norms" in note.what for note in checked.notes)
    found = checked.reading.study
    assert found is not None
    assert "with 1,000 persons" in estimate_page(estimate(found))
