"""A clip that follows the norms in a training with noise: it finds them, it is charged, and every replay has the same one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.method import Setting
from fivefold.algorithms.training_clip import Joint, deviation_of, joint, moved, remark
from fivefold.algorithms.training_loop import framed
from fivefold.algorithms.training_rows import person_gradients, problem
from fivefold.algorithms.training_steps import local_update
from fivefold.errors import StudyInvalid
from fivefold.models.model import named
from fivefold.plugins import method
from fivefold.privacy.dp.adaptive_clipping import count_multiplier, update_multiplier
from fivefold.privacy.dp.events import Event, composed, curve
from fivefold.privacy.dp.shares import deviation, noisy
from fivefold.protocol.questions import Aggregate, Sum
from fivefold.study.definition import Analysis
from tests.algorithms import noisy as driver
from tests.algorithms import real_data

FORMULA = "malignant ~ mean_radius + mean_texture + mean_concavity + mean_symmetry"
RANGES = {
    "mean_radius": [6, 22], "mean_texture": [10, 30], "mean_concavity": [0, 0.3], "mean_symmetry": [0.1, 0.25],
}  # fmt: skip


def asked(name: str = "fedopt", **options: Any) -> Analysis:
    given = {"ranges": RANGES, "rounds": 20, "clip": "adaptive", "learning_rate": 1.0}
    given |= {"optimiser": "momentum", "beta1": 0.5, "server_rate": 1.0} if name == "fedopt" else {}
    return Analysis("a", name, FORMULA, options=given | options)


def first_update(setting: Setting, analysis: Analysis, people: int) -> tuple[Sum, Joint]:
    spec = method(analysis.method).parse(analysis, setting)
    frame = framed(spec, None, people, people)
    state = {"weights": np.zeros(spec.width), "clips": np.array([spec.clip])}
    from fivefold.algorithms.training_loop import ask_update

    return ask_update(frame, state, 1), joint(frame, state)


@pytest.mark.parametrize(("unit", "z"), [("person", 6.2), ("person", 0.7), ("site", 2.5)])
def test_one_noise_covers_update_and_count_as_theorem_1_says(unit: str, z: float) -> None:
    """The round costs z; the update's part of it is z_Δ, the count's 2σ_b."""
    _, setting, _ = real_data.breast()
    setting = driver.private(setting, z=z, unit=unit)
    question, own = first_update(setting, asked(clip_start=0.3, local_epochs=1), 400)
    assert setting.sharing is not None
    (field,) = noisy(question.fields, setting.sharing)
    assert field.noise is not None
    said = deviation(field.noise, len(setting.sites))
    units = 400 if unit == "person" else len(setting.sites)
    shares = said / own.clip, said / own.factor  # a little more than is owed: the sensitivity after rounding counts
    owed = update_multiplier(z, deviation_of(z, units)), deviation_of(z, units)
    assert all(o <= s <= o * (1 + 1e-3) for s, o in zip(shares, owed, strict=True))
    parts = [Event("discrete_gaussian", shares[0]), Event("discrete_gaussian", count_multiplier(shares[1]))]
    together, whole = composed(curve(e) for e in parts), curve(Event("discrete_gaussian", z))
    assert np.all(together <= whole)
    assert np.allclose(together, whole, rtol=5e-3)
    assert own.sensitivity == pytest.approx(math.hypot(own.clip, own.factor / 2))


@pytest.mark.parametrize("unit", ["person", "site"])
@pytest.mark.parametrize("start", [0.02, 20.0])
def test_the_clip_finds_the_norms_from_far_off_and_the_model_learns(unit: str, start: float) -> None:
    _, setting, tables = real_data.breast()
    more = {"local_epochs": 2, "batch_size": 16, "learning_rate": 0.3, "evaluate_every": 0} if unit == "site" else {}
    z = 1.5 if unit == "site" else 4.0
    setting = driver.private(setting, z=z, unit=unit)
    rounds = 60 if unit == "person" else 40
    analysis = asked(rounds=rounds, clip_start=start, clip_rate=0.3 if unit == "person" else 0.4, **more)
    found = driver.run(method("fedopt"), analysis, setting, tables)
    clips = [float(str(c)) for c in found.tables["clips"].column("clip")]
    assert clips[0] == start
    assert len(clips) == rounds
    if unit == "person":  # the median of the norms where the training ended, which shrinks as the model learns
        spec = method("fedopt").parse(analysis, setting)
        at = named(np.array(found.tables["weights"].column("value"), dtype=np.float64), spec.network().shapes)
        fit = framed(spec, None, 569, 569).fit
        parts = [problem(t, fit) for t in tables]
        norms = np.concatenate([person_gradients(m, at, rows, 1.0)[1] for m, rows, _ in parts])
        assert 0.5 < clips[-1] / np.median(norms) < 2
    assert 0.05 < clips[-1] < 4
    assert found.facts["clip"] == clips[-1]
    weight = dict(zip(found.tables["coefficients"].column("term"), found.tables["coefficients"].column("scaled"), strict=True))
    assert float(str(weight["mean_radius"])) > 0.2
    assert float(str(weight["mean_concavity"])) > 0.2


def test_a_clip_moves_by_the_noisy_share_within_and_is_a_function_of_the_aggregate() -> None:
    _, setting, _ = real_data.breast()
    setting = driver.private(setting, z=2.0)
    spec = method("fedopt").parse(asked(clip_start=1.0, clip_quantile=0.6, clip_rate=0.5), setting)
    frame = framed(spec, None, 300, 300)
    state = {"weights": np.zeros(spec.width), "clips": np.array([1.0])}
    own = joint(frame, state)
    total = Aggregate({"update": np.append(np.zeros(spec.width), own.factor * 75.0)}, setting.sites)  # three quarters within
    after = moved(frame, state, {"weights": np.ones(spec.width)}, total)
    assert after["clips"][-1] == pytest.approx(math.exp(-0.5 * (0.75 - 0.6)), rel=1e-12)
    assert np.array_equal(after["clips"], moved(frame, state, after, total)["clips"])


def test_a_site_without_rows_is_in_no_count_and_a_site_beyond_the_clip_counts_against_it() -> None:
    _, setting, tables = real_data.breast()
    question, own = first_update(driver.private(setting, z=2.0, unit="site"), asked(clip_start=1e-3), 0)
    empty = tables[0].take(np.zeros(len(tables[0].person), dtype=bool))
    assert not np.any(local_update(empty, **question.arguments)["update"])
    said = local_update(tables[0], **question.arguments)["update"]
    assert said[-1] == -own.factor / 2
    assert np.linalg.norm(said) <= own.sensitivity * (1 + 1e-12)
    wide = local_update(tables[0], **question.arguments | {"local": {**question.arguments["local"], "clip": 1e6}})["update"]
    assert wide[-1] == own.factor / 2


def test_what_the_counts_cost_is_said() -> None:
    _, setting, _ = real_data.breast()
    (site,) = remark(method("fedopt").parse(asked(), driver.private(setting, z=3.0, unit="site")))
    assert "3.46 instead of 3" in site
    (person,) = remark(method("fedopt").parse(asked(), driver.private(setting, z=6.2)))
    assert "6.21 with 1,000 persons" in person
    assert remark(method("fedopt").parse(asked(clip=1.0), driver.private(setting))) == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"clip": 1.0, "clip_start": 1.0}, "clip is fixed"), ({"clip_quantile": 1.5}, "clip_quantile"), ({"clip": "auto"}, "clip"),
     ({"clip_rate": 0}, "clip_rate")],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid, match=words):
        method("fedopt").parse(asked(**options), driver.private(setting))


def test_exact_sums_have_no_adaptive_clip() -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid, match="adaptive"):
        method("fedavg").parse(asked("fedavg", scaling="range"), setting)


def test_without_it_a_question_is_as_it_was() -> None:
    _, setting, _ = real_data.breast()
    question, own = first_update(driver.private(setting, unit="site"), asked(clip=1.0), 0)
    assert "count" not in question.arguments["local"]
    assert own.more == 0
    assert question.fields[0].sensitivity == 1.0
    assert own == Joint(1.0, 0.0, 1.0)
