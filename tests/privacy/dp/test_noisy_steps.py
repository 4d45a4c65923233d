"""Local DP-SGD: what a sampled Gaussian costs, and that the steps keep to what was paid for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.rdp import RdpAccountant
from opacus.accountants.analysis import rdp

from fivefold.algorithms.training_steps import gradient_of_persons
from fivefold.errors import PolicyRefuses, Refused, StudyInvalid
from fivefold.plugins import method
from fivefold.privacy.dp.accounting import multiplier_for, question_event, spent
from fivefold.privacy.dp.events import ORDERS, Event, composed, curve, epsilon_of, from_plain, to_plain
from fivefold.privacy.dp.noisy_steps import NoisySteps
from fivefold.protocol.questions import Aggregate, Field, OwnNoise
from fivefold.replay.cursor import Asked
from fivefold.site.kept_state import computed
from fivefold.site.noising import clipped, own_steps
from fivefold.study.definition import Analysis
from tests.algorithms import noisy, real_data

CASES = [(0.01, 0.8, 1000), (0.1, 1.0, 50), (0.05, 4.0, 200), (0.5, 2.0, 10), (1.0, 6.0, 30)]
KEY = bytes(range(32))


@pytest.mark.parametrize(("q", "z", "steps"), CASES)
def test_the_curve_and_the_epsilon_are_those_of_opacus_and_dp_accounting(q: float, z: float, steps: int) -> None:
    ours = curve(Event("sampled_gaussian", z, steps, 0.0, q))
    some = [order for order in ORDERS if order <= 256]  # beyond, Opacus' binomials overflow
    theirs = np.array(rdp.compute_rdp(q=q, noise_multiplier=z, steps=steps, orders=some))
    np.testing.assert_allclose(ours[: len(some)], theirs, rtol=1e-6, atol=steps * 1e-10)
    assert np.all(ours[: len(some)] >= theirs - 1e-9 * theirs - steps * 1e-13)
    accountant = RdpAccountant(list(ORDERS))
    accountant.compose(SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(z)), steps))
    assert epsilon_of(ours, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)


@pytest.mark.parametrize(
    ("q", "shift", "z", "steps"), [(0.3, 3, 1.0, 1), (0.1, 2, 0.7, 2), (0.5, 1, 2.0, 2), (0.05, 5, 0.6, 2)]
)
def test_the_exact_epsilon_of_the_discrete_gaussian_is_never_above_ours(q: float, shift: int, z: float, steps: int) -> None:
    """Number by number, in both directions: a person drawn with probability q moves the sum by whole grid steps."""
    x = np.arange(-25 * shift, 26 * shift + 1)
    base = np.exp(-(x**2) / (2 * (z * shift) ** 2))
    moved = np.exp(-((x - shift) ** 2) / (2 * (z * shift) ** 2))
    without, there = base / base.sum(), moved / moved.sum()
    with_person = (1 - q) * without + q * there
    p, o = (np.array([math.prod(c) for c in itertools.product(d, repeat=steps)]) for d in (with_person, without))
    for delta in (1e-3, 1e-5):
        epsilon = epsilon_of(curve(Event("sampled_gaussian", z, steps, 0.0, q)), delta)
        for one, other in ((p, o), (o, p)):
            assert float(np.maximum(one - math.exp(epsilon) * other, 0).sum()) <= delta


def test_steps_and_questions_add_up_and_travel() -> None:
    event = Event("sampled_gaussian", 2.0, 40, 0.0, 0.1)
    assert from_plain(to_plain(event)) == event
    both = composed([curve(event), curve(Event("discrete_gaussian", 2.0, 3))])
    assert spent(3, 2.0, 1e-5, [(40, 0.1)]) == pytest.approx(epsilon_of(both, 1e-5), rel=1e-9)
    least = multiplier_for(3, 1.0, 1e-5, [(40, 0.1)])
    assert spent(3, least, 1e-5, [(40, 0.1)]) <= 1.0 < spent(3, 0.998 * least, 1e-5, [(40, 0.1)])
    for wrong in ({"sampling": 0.0}, {"sampling": 1.5}):
        with pytest.raises(ValueError, match="sampling"):
            Event("sampled_gaussian", 1.0, **wrong)
    with pytest.raises(ValueError, match="sampling"):
        Event("discrete_gaussian", 1.0, sampling=0.5)


def test_one_person_moves_a_sum_by_whole_steps_within_the_clip() -> None:
    r, clip = np.random.default_rng(3), 0.7
    steps = NoisySteps(OwnNoise(1, 1.0, clip), 1.0, KEY)
    most = int(math.ldexp(clip, 26))  # 2^26 steps for a clip of 1/2 to 1
    for scale in (1e-3, 1.0, 1e3, 1e200):
        cut = steps.bounded(r.normal(size=50) * scale)
        assert sum(int(v) ** 2 for v in cut) <= most**2
    assert not steps.bounded(np.array([1.0, np.nan])).any()
    long = steps.bounded(np.full(4, 1e6))
    assert np.linalg.norm(long) == pytest.approx(most, rel=1e-6)


def test_persons_and_noise_are_the_same_again_and_fresh_in_every_step() -> None:
    own = OwnNoise(2, 0.3, 1.0)

    def two(key: bytes = KEY) -> list[Any]:
        steps = NoisySteps(own, 2.0, key)
        return [(steps.drawn(4000).copy(), steps.total([], 3000)) for _ in range(2)]

    first, again, other = two(), two(), two(bytes(32))
    for (drawn, noise), (drawn_again, noise_again) in zip(first, again, strict=True):
        assert np.array_equal(drawn, drawn_again)
        assert np.array_equal(noise, noise_again)
        assert abs(drawn.mean() - 0.3) < 0.03  # four deviations
        assert abs(noise.std() - 2.0) < 0.11
    assert not np.array_equal(first[0][0], first[1][0])
    assert abs(np.corrcoef(first[0][1], first[1][1])[0, 1]) < 0.08
    assert abs(np.corrcoef(first[0][1], other[0][1])[0, 1]) < 0.08
    steps = NoisySteps(own, 2.0, KEY)
    for _ in range(2):
        steps.total([], 1)
    assert steps.finished
    with pytest.raises(ValueError, match="nobody paid"):
        steps.total([], 1)


def asked(**options: Any) -> Analysis:
    given = {"rounds": 2, "clip": 0.5, "evaluate_every": 0, "local_steps": 5, "sampling": 0.5, "learning_rate": 1.0} | options
    return Analysis("a", "fedavg", "malignant ~ mean_texture + mean_area", options=given)


def test_the_step_takes_its_noise_from_the_gate_or_does_not_answer() -> None:
    _, setting, tables = real_data.breast()
    setting = noisy.private(setting, z=2.0)
    fedavg = method("fedavg")
    spec = fedavg.parse(asked(), setting)
    rounds = fedavg.rounds(spec)
    (count,) = next(rounds)
    total = Aggregate({"persons": np.asarray(500)}, setting.sites)
    assert count.fields[0].own is None
    question = rounds.send((total,))
    one = question[0] if isinstance(question, tuple) else question
    question = Asked(2, asked(), "fedavg", one, setting.sharing)
    assert question_event(question.fields, 2.0, 3) == Event("sampled_gaussian", 2.0, 5, 0.0, 0.5)
    with pytest.raises(Refused, match="nothing to draw noise from"):
        computed(question, [one.arguments], tables[0], lambda _: None)
    noise = own_steps(question.fields, 2.0, KEY)
    assert noise is not None
    answer, _ = computed(question, [one.arguments], tables[0], lambda _: None, noise)
    assert noise.finished
    assert clipped(answer, question.fields, "person", finished=True)["update"].shape == (spec.width,)
    with pytest.raises(PolicyRefuses, match="did not take its noise"):
        clipped(answer, question.fields, "person")
    with pytest.raises(PolicyRefuses, match="together"):
        own_steps((*question.fields, Field("n", "persons", 1.0, (), 1.0)), 2.0, KEY)
    again, _ = computed(question, [one.arguments], tables[0], lambda _: None, own_steps(question.fields, 2.0, KEY))
    assert np.array_equal(answer["update"], again["update"])
    assert fedavg.cost(spec).own_rounds == 2


@pytest.mark.parametrize("kind", ["logistic", "torch_mlp"])
def test_steps_without_noise_are_descent_on_the_persons_gradients(kind: str) -> None:
    _, setting, tables = real_data.breast()
    setting = noisy.private(setting, z=1e-9)
    fedavg = method("fedavg")
    frame_of = fedavg.rounds(fedavg.parse(asked(local_steps=1, sampling=1.0, model={"kind": kind}), setting))
    next(frame_of)
    question: Any = frame_of.send((Aggregate({"persons": np.asarray(500)}, setting.sites),))
    one = question[0] if isinstance(question, tuple) else question
    noise = NoisySteps(one.fields[0].own, 1e-9, KEY)
    update = one.step(tables[0], **one.arguments, noise=noise)["update"]
    arguments = {"weights": one.arguments["weights"], "fit": one.arguments["fit"], "local": {"clip": 0.5}}
    wanted = gradient_of_persons(tables[0], **arguments)["update"] / (500 / len(setting.sites))
    np.testing.assert_allclose(update, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "unit", "words"),
    [
        ({}, "", "protects none"),
        ({}, "site", "protects none"),
        ({"clip": "adaptive"}, "person", "fixed clip"),
        ({"local_steps": 0}, "person", "no site takes steps"),
        ({"sampling": 2.0}, "person", "sampling"),
    ],
)
def test_what_noisy_steps_cannot_be(options: dict[str, Any], unit: str, words: str) -> None:
    _, setting, _ = real_data.breast()
    with pytest.raises(StudyInvalid, match=words):
        method("fedavg").parse(asked(**options), noisy.private(setting, unit=unit) if unit else setting)
