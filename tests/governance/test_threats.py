"""`study threats`: what it calls covered, open, and to be changed follows from the study's own choices."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fivefold.governance import study_check
from fivefold.governance.threats import Choices, Threat, protected, table, threats
from fivefold.privacy.dp.accounting import spent
from fivefold.study.definition import OutputChecker, Study
from tests.journeys.consortium import fivefold

ROOT = Path(__file__).parents[2]
NAMES = (
    "curious coordinator", "colluding sites", "malicious coordinator", "curious analyst", "membership inference",
    "reconstruction from gradients", "differencing", "poisoning",
)  # fmt: skip


def example(name: str) -> Study:
    found = study_check.check(ROOT / "examples" / name).reading.study
    assert found is not None
    return found


def by_name(study: Study) -> dict[str, Threat]:
    return {t.name: t for t in threats(study)}


def private(study: Study, **changes: object) -> Study:
    return dataclasses.replace(study, privacy=dataclasses.replace(study.privacy, **changes))


def test_every_threat_is_looked_at_with_its_numbers() -> None:
    found = by_name(example("lung/study.yaml"))
    assert tuple(found) == NAMES
    assert "at least 4 of 5 sites" in found["curious coordinator"].covered[0]
    assert found["malicious coordinator"].status == "covered"
    assert found["curious analyst"].status == "covered"
    assert found["poisoning"].status == "in part"
    assert all(t.covered for t in found.values())
    assert all(bool(t.open) == bool(t.change) for t in found.values())


def wide(study: Study) -> Study:
    """With a network too wide for its sites to add up."""
    first, *rest = study.analyses
    options = {**first.options, "model": {"kind": "mlp", "hidden": [8000]}}
    return dataclasses.replace(study, analyses=(dataclasses.replace(first, options=options), *rest))


def test_a_small_model_is_added_up_by_its_sites_and_a_wide_one_is_not() -> None:
    study = example("breast/training.yaml")
    assert by_name(study)["malicious coordinator"].status == "covered"
    assert any("taken on trust" in line for line in by_name(wide(study))["malicious coordinator"].open)


def test_an_exact_training_is_open_and_what_is_recommended_closes_it() -> None:
    study = wide(example("breast/training.yaml"))
    before = by_name(study)
    for name in ("membership inference", "reconstruction from gradients", "malicious coordinator"):
        assert before[name].status == "in part"
        assert any("noise_multiplier: " in line for line in before[name].change), name
    closed = protected(study)
    assert closed is not None
    noise = closed.privacy.differential_privacy
    assert noise is not None
    assert (noise.unit, noise.epsilon) == ("person", 1.0)
    after = by_name(closed)
    assert after["membership inference"].status == after["reconstruction from gradients"].status == "covered"
    assert after["differencing"].status == "covered"
    assert any("ε = 1 " in line for line in after["malicious coordinator"].covered)


def test_the_recommended_noise_pays_for_all_rounds_and_weak_noise_is_named() -> None:
    study = example("breast/private.yaml")
    closed, weak = protected(study), study.privacy.differential_privacy
    assert closed is not None
    assert weak is not None
    noise, rounds = closed.privacy.differential_privacy, Choices(closed).rounds
    assert noise is not None
    assert spent(rounds, noise.noise_multiplier, noise.delta) <= 1.0 < spent(rounds, 0.99 * noise.noise_multiplier, noise.delta)
    ten = private(study, differential_privacy=dataclasses.replace(weak, epsilon=10.0))
    assert by_name(ten)["membership inference"].open == ("an ε of 10 bounds little, for a person whom an attacker looks for",)


@pytest.mark.parametrize(
    ("threat", "changes", "open_before"),
    [
        ("colluding sites", {"colluders": 1}, "c = 0"),
        ("differencing", {"minimum_difference": 3}, "difference of two sites"),
    ],
)
def test_what_is_to_be_changed_closes_the_threat(threat: str, changes: dict[str, object], open_before: str) -> None:
    study = example("breast/study.yaml")
    assert open_before in by_name(study)[threat].open[0]
    assert by_name(private(study, **changes))[threat].status == "covered"


def test_a_curious_adversary_and_missing_checkers_are_named() -> None:
    study = example("breast/study.yaml")
    found = by_name(private(study, adversary="curious"))["malicious coordinator"]
    assert found.change == ("privacy.adversary: active",)
    checkers = tuple(OutputChecker(n, "Office", 64 * d) for n, d in (("One", "a"), ("Two", "b")))
    checked = dataclasses.replace(study, outputs=dataclasses.replace(study.outputs, checkers=checkers))
    assert by_name(study)["curious analyst"].open
    assert not by_name(checked)["curious analyst"].open


def test_the_table_and_the_command_say_the_same() -> None:
    path = ROOT / "examples" / "breast" / "training.yaml"
    rows = table(example("breast/training.yaml"))
    said = fivefold("study", "threats", path)
    assert said.returncode == 0
    assert [line.split(" (")[0][2:] for line in said.stdout.splitlines() if line[:1] in "✓◐✗" and line] == list(NAMES)
    plain = json.loads(fivefold("study", "threats", path, "--json").stdout)
    assert [(t["threat"], t["status"]) for t in plain] == list(zip(rows.column("threat"), rows.column("status"), strict=True))
    page = fivefold("study", "show", path).stdout
    assert "What threatens them" in page
    assert "reconstruction from gradients: in part" in page
