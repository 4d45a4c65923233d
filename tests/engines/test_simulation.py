"""Simulated clients: the same numbers as the same methods over the same rows, made when they are needed and let go after."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.training_vectorised import Blocks, local_updates
from fivefold.data.partitions import parse
from fivefold.engines import simulated_answers
from fivefold.engines.simulated_clients import ArrayClients, Clients, made_up_rows, real_rows
from fivefold.engines.simulation import Simulation, drawn_roster, simulate, with_rounds
from fivefold.errors import OutOfBounds, SimulationInvalid
from fivefold.models.model import ModelSpec
from fivefold.plugins import method
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis, DifferentialPrivacy, Privacy
from tests.algorithms import plain, real_data
from tests.algorithms.training_data import BREAST, weights
from tests.engines.simulated import study, training

FRAME, SETTING, TABLES = real_data.breast()


def real(partition: str, clients: int | None = None, rows: int = 20) -> Clients:
    return real_rows(TABLES, "malignant", parse(partition), clients=clients, rows=rows, seed=3)


def made_up(clients: int, partition: str = "dirichlet:0.3") -> Clients:
    return made_up_rows(SETTING.dictionary, "malignant", parse(partition), clients=clients, rows=10, seed=3)


def result(done: Simulation, name: str = "training") -> Result:
    found = done.results[name]
    assert isinstance(found, Result), found
    return found


@pytest.mark.parametrize(
    "analysis",
    [
        training(),
        training(local_epochs=3, weighting="equal", evaluate_every=1),
        training(clip=0.05, local_epochs=2),
        training("fedopt", model={"kind": "mlp", "hidden": [4]}, batch_size=16),
        training("fedprox", mu=0.1),
        training("scaffold", local_epochs=2),
    ],
    ids=lambda a: f"{a.method} {sorted(a.options)}",
)
def test_sites_as_clients_give_what_the_method_gives_over_those_sites(analysis: Analysis, monkeypatch: Any) -> None:
    """Whichever of the three ways answers a question."""
    monkeypatch.setattr("fivefold.algorithms.training_steps.chance", lambda seed, site, *more: np.random.default_rng(9))
    done = simulate(study(SETTING, analysis), real("natural"), 5)
    pooled = plain.run(method(analysis.method), analysis, dataclasses.replace(SETTING, seed=3), TABLES)
    np.testing.assert_allclose(weights(result(done)), weights(pooled), rtol=0, atol=1e-12)


def test_a_method_that_trains_nothing_keeps_one_roster_and_gives_the_pooled_answer() -> None:
    one = Analysis("model", "glm", "malignant ~ mean_texture + mean_smoothness", options={"family": "binomial"})
    done = simulate(study(SETTING, one), real("natural"), 5)
    pooled = plain.run(method("glm"), one, SETTING, TABLES)
    got, want = (r.tables["coefficients"].column("estimate") for r in (result(done, "model"), pooled))
    np.testing.assert_allclose(np.array(got, dtype=float), np.array(want, dtype=float), rtol=1e-9)


def test_the_secure_sum_among_the_roster_gives_the_plain_sum_to_the_ring_s_resolution() -> None:
    here = study(SETTING, training(evaluate_every=1))
    plainly, secured = simulate(here, real("natural"), 5), simulate(here, real("natural"), 5, secure=True)
    assert secured.bytes_between_parties > 10_000
    resolution = 16.0 * 2.0 ** -(31 - 3)
    assert 0 < np.abs(weights(result(plainly)) - weights(result(secured))).max() < 3 * 5 * resolution


def test_a_client_beyond_its_bound_ends_the_simulation_in_a_sentence() -> None:
    for secure in (False, True):
        with pytest.raises(OutOfBounds):
            simulate(study(SETTING, training(learning_rate=1000.0, update_bound=0.01)), real("natural"), 5, secure=secure)


def test_each_round_of_a_training_draws_a_roster_anew_and_two_runs_draw_the_same() -> None:
    rosters = [drawn_roster(3, 10**6, 50, round) for round in range(1, 20)]
    assert all(len(np.unique(r)) == 50 for r in rosters)
    assert len({r.tobytes() for r in rosters}) == len(rosters)
    assert np.array_equal(rosters[4], drawn_roster(3, 10**6, 50, 5))
    seen = np.concatenate([drawn_roster(3, 20, 10, round) for round in range(400)])
    counts = np.bincount(seen, minlength=20)
    assert ((counts - 200) ** 2 / 200).sum() < 45  # chi-square, 19 degrees of freedom


def test_two_simulations_of_a_study_are_one_and_learn() -> None:
    here = study(SETTING, training(rounds=8, local_epochs=2, evaluate_every=4))
    one, again = (simulate(here, made_up(5_000), 30) for _ in range(2))
    assert result(one).facts == result(again).facts
    assert float(str(result(one).facts["accuracy"])) > 0.75


def peak(clients: int) -> int:
    here, source = study(SETTING, training(rounds=2)), made_up(clients)
    tracemalloc.start()
    simulate(here, source, 20)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_clients_that_are_in_no_roster() -> None:
    peak(1_000)  # what is imported and cached once
    few, many = peak(1_000), peak(1_000_000)
    assert many < 1.2 * few + 50_000


def test_rows_of_a_share_alone_are_held(monkeypatch: Any) -> None:
    held: list[int] = []
    source = made_up(500)

    class Counted:
        count, about, blocks = source.count, source.about, source.blocks

        def merged(self, ids: Any) -> Any:
            held.append(len(ids))
            return source.merged(ids)

    monkeypatch.setattr(simulated_answers, "SHARE", 16)
    simulate(study(SETTING, training(rounds=1)), Counted(), 50)
    assert max(held) == 16


def test_real_rows_are_partitioned_by_person_value_or_draw() -> None:
    persons = real("natural:person")
    assert persons.count == len(FRAME)
    assert np.array_equal(np.diff(persons.merged(np.arange(9)).start), np.ones(9))
    grades = real("natural:grade")
    assert grades.count == 3
    for i in range(3):
        assert len(np.unique(grades.merged(np.array([i])).table["grade"])) == 1
    one = real("label:1", 1000).merged(np.arange(50))
    for i in range(50):
        assert len(np.unique(one.one(i, "client")["malignant"])) == 1
    skewed = real("dirichlet:0.1", 1000, rows=30).merged(np.arange(50))
    assert np.array_equal(np.diff(skewed.start), np.full(50, 30))
    assert skewed.table.persons == 1500


def test_what_does_not_fit_is_refused_with_what_to_write() -> None:
    here = study(SETTING, training())
    for clients, roster in ((made_up(10), 11), (made_up(10), 2), (made_up(10), 0)):
        with pytest.raises(SimulationInvalid) as caught:
            simulate(here, clients, roster)
        assert "--roster" in caught.value.hint
    with pytest.raises(SimulationInvalid, match="128"):
        simulate(here, made_up(1000), 129, secure=True)
    with pytest.raises(SimulationInvalid, match="5 clients"):
        real("natural", 6)
    with pytest.raises(SimulationInvalid, match="no variable"):
        real("natural:hat")
    with pytest.raises(SimulationInvalid, match="real rows"):
        made_up(10, "natural")
    with pytest.raises(SimulationInvalid, match="one outcome"):
        real_rows(TABLES, "", parse("label:1"), clients=10, rows=5, seed=1)
    with pytest.raises(SimulationInvalid, match="an app that a site admits"):
        simulate(study(SETTING, Analysis("app", "flower_app")), made_up(100), 10)
    with pytest.raises(SimulationInvalid, match="trains"):
        with_rounds(study(SETTING, Analysis("model", "glm", BREAST, options={"family": "binomial"})), 3)


def test_rounds_are_those_that_were_asked_for() -> None:
    done = simulate(with_rounds(study(SETTING, training()), 5), made_up(100), 10)
    assert done.rounds == 1 + 5  # one counts
    assert done.answers == 60
    assert done.facts()["governed"] is False


def test_noise_is_as_large_as_the_study_says() -> None:
    private = Privacy(differential_privacy=DifferentialPrivacy("site", 50.0, 1e-5, 2.0))
    options = {"rounds": 1, "clip": 1.0, "learning_rate": 1e-9}
    noisy = simulate(study(SETTING, training(**options), privacy=private), made_up(100), 50)
    moved = weights(result(noisy))
    # z times the sensitivity, over the roster's mean; five weights.
    assert 0.2 < np.sqrt(np.mean(moved**2)) / (2.0 * 1.0 / 50) < 3.0


@pytest.mark.parametrize("kind", ["linear", "logistic", "softmax"])
@pytest.mark.parametrize(("epochs", "clip"), [(1, 0.0), (3, 0.0), (1, 0.02), (3, 0.02)])
def test_blocks_add_up_the_updates_that_each_client_would_send(kind: str, epochs: int, clip: float) -> None:
    rng = np.random.default_rng(1)
    task, outputs = {"linear": ("regression", 1), "logistic": ("binary", 1), "softmax": ("classes", 4)}[kind]
    spec = ModelSpec(kind, task, 6, outputs, l2=0.1)
    x, start = rng.normal(size=(23, 7, 6)), rng.normal(size=6 * outputs + outputs)
    y = rng.integers(0, max(outputs, 2), (23, 7)).astype(float)
    held = rng.integers(0, 8, 23)
    share = rng.random(23) * (held > 0)
    each = local_updates(spec, start, x, y, np.arange(7) < held[:, None], rate=0.1, epochs=epochs)
    norm = np.sqrt((each**2).sum(axis=1, keepdims=True))
    if clip:
        each = each * np.minimum(1, clip / np.maximum(norm, 1e-300))
    blocks = Blocks(spec, start, 0.1, epochs, clip)
    for a, b in ((0, 10), (10, 20), (20, 23)):
        blocks.add(x[a:b], y[a:b], held[a:b], share[a:b])
    np.testing.assert_allclose(blocks.total, share @ each, atol=1e-12)


def test_arrays_are_clients_too() -> None:
    rng = np.random.default_rng(2)
    names = [f"p{i}" for i in range(4)]
    setting = real_data.setting([*(real_data.number(n, -1, 1) for n in names), real_data.category("kind", "a", "b", "c")], [])
    y = rng.integers(0, 3, (60, 8))
    x = rng.normal(size=(60, 8, 4)).astype(np.float32) * 0.1 + np.eye(4)[y][..., :4] * 0.5
    one = Analysis("training", "fedavg", "kind ~ " + " + ".join(names),
                   options={"rounds": 30, "evaluate_every": 10, "scaling": "range", "learning_rate": 1.0})  # fmt: skip
    done = simulate(study(setting, one), ArrayClients(x, y, setting.dictionary, names, "kind"), 20)
    assert float(str(result(done).facts["accuracy"])) > 0.95
