"""A study simulated on one machine: many made clients, of which a roster answers each round.

The methods are those of a run, question by question through the same generators. What is missing is everything that governs a
run: no site, no approval, no gate, no budget; protection is off unless the secure sum is asked for, and then one process plays
all its parties. So a simulation tells how a study would learn, and nothing about what anybody may do.

A training draws a roster anew each round, from the study's seed; any other method keeps one roster. Where the study has
differential privacy, noise of the size that all clients of the roster would add together is added to each sum, from the study's
seed; what sampling does to (ε, δ) is not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fivefold.algorithms.training_spec import TrainingSpec
from fivefold.data.partitions import chance
from fivefold.disclosure.rules import screen
from fivefold.engines.simulated_answers import Kept, Request, Totals, total_of
from fivefold.engines.simulated_clients import Clients, Ids
from fivefold.errors import OutOfBounds, SimulationInvalid, TooFewPersons, ValueNotFinite
from fivefold.plugins import method
from fivefold.protocol.questions import Array, Field
from fivefold.protocol.results import Result
from fivefold.replay.buffered import buffers_of
from fivefold.replay.cursor import Asked, Cursor, Ended, Outcome, setting_of
from fivefold.study.definition import Analysis, Study, StudySite


class Answers(Protocol):
    """Gives the sum over a roster."""

    def total(self, asked: Asked, request: Request, ids: Ids) -> Totals: ...

    def close(self) -> None: ...


@dataclass
class InProcess:
    """This process answers for every client."""

    clients: Clients

    def __post_init__(self) -> None:
        self._kept: Kept = {}

    def total(self, asked: Asked, request: Request, ids: Ids) -> Totals:
        return total_of(request, self.clients, ids, self._kept)

    def close(self) -> None:
        self._kept.clear()


@dataclass(frozen=True)
class Progress:
    """What may be shown while a simulation goes on. `answers` are those of clients since it began, `seconds` its time."""

    round: int
    rounds: int
    """At most."""
    analysis: str
    step: str
    answers: int
    seconds: float


@dataclass(frozen=True)
class Simulation:
    """A finished simulation: for each analysis a result or the sentence in which it ended, and what it was made of."""

    results: Mapping[str, Result | Ended]
    clients: int
    about: str
    roster: int
    secure: bool
    rounds: int
    answers: int
    seconds: float
    bytes_between_parties: int = 0

    @property
    def answers_per_second(self) -> float:
        return self.answers / max(self.seconds, 1e-9)

    def facts(self) -> dict[str, int | float | str | bool]:
        """As JSON values. What differs between two simulations of one study is not here."""
        return {
            "clients": self.clients, "roster": self.roster, "rows": self.about, "secure_sum": self.secure,
            "rounds": self.rounds, "governed": False,
        }  # fmt: skip


def simulate(
    study: Study,
    clients: Clients,
    roster: int,
    *,
    answers: Answers | None = None,
    secure: bool = False,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Simulation:
    """Play every analysis of a study over `clients`, `roster` of them a round. `answers` (this process, if left out) adds up;
    `secure` runs the secure sum among the roster instead.

    Raises `SimulationInvalid` where clients and roster do not fit the study, and what a client's step raises.
    """
    from fivefold.engines.simulated_secure_sum import SecureRoster

    study = without_apps(among(study, clients, roster))
    if buffers_of(study, ()):
        raise SimulationInvalid(
            "fedbuff hangs on how long each site takes, and a simulated client takes no time",
            help="Simulate the same model with the method fedavg, or play slow sites: `python -m benchmarks.asynchronous`.",
        )
    if any(method(a.method).gathers for a in study.analyses):
        raise SimulationInvalid(
            "robust training needs each client's own update, and a simulated roster gives sums alone",
            help="Run it with `fivefold run`, or simulate the same model with the method fedavg.",
        )
    slots = tuple(s.name for s in study.sites)
    secured = SecureRoster(study, clients) if secure else None
    source: Answers = secured or answers or InProcess(clients)
    cursor = Cursor(study)
    trains = {a.name: trained(a, study) is not None for a in study.analyses}
    most, asked_so_far, began = sum(price(a, study) for a in study.analyses), 0, time.perf_counter()
    try:
        while cursor.open is not None:
            asked = cursor.open
            if any(one.step.draws for one in asked.sums):
                raise SimulationInvalid(
                    "noisy steps draw persons and noise from a site's secret, and a simulated client has none",
                    help="Simulate without local_steps, or run the study at its sites.",
                )
            anew = trains[asked.analysis.name]
            ids = drawn_roster(study.seed, clients.count, roster, asked.round if anew else asked.analysis.name)
            totals = source.total(asked, Request.of(asked, () if anew else slots), ids)
            if not secure:
                totals = _judged(totals, asked, roster, study.seed)
            asked_so_far += roster
            name, passed = asked.sums[0].step.identity, time.perf_counter() - began
            tell(Progress(asked.round, max(most, asked.round), asked.analysis.name, name, asked_so_far, passed))
            cursor.feed(_outcome(asked, totals, slots, study.privacy.minimum_persons))
            rounds = asked.round
    finally:
        cursor.close()
        source.close()
    passed = time.perf_counter() - began
    sent = secured.sent if secured else 0
    return Simulation(
        cursor.results, clients.count, clients.about, roster, secure, rounds, asked_so_far, passed, sent
    )  # fmt: skip


def among(study: Study, clients: Clients, roster: int) -> Study:
    """The study with the places of a roster as its sites. Raises `SimulationInvalid`."""
    if not 1 <= roster <= clients.count:
        raise SimulationInvalid(
            f"a roster of {roster:,} cannot be drawn from {clients.count:,} clients",
            help=f"Write --roster with a number from {study.privacy.minimum_sites} to {clients.count}.",
        )
    if roster < study.privacy.minimum_sites:
        raise SimulationInvalid(
            f"a roster of {roster} is smaller than the study's minimum_sites, {study.privacy.minimum_sites}",
            help=f"Write --roster {study.privacy.minimum_sites} or more.",
        )
    places = tuple(StudySite(f"place-{i}", "") for i in range(1, roster + 1))
    return replace(study, sites=places, privacy=replace(study.privacy, threshold=None))


def without_apps(study: Study) -> Study:
    """The study itself, where no analysis runs a program that a site has to admit first. Raises `SimulationInvalid`."""
    for analysis in study.analyses:
        if method(analysis.method).admit is not None:
            raise SimulationInvalid(
                f"{analysis.method} runs an app that a site admits, and in a simulation there is no site",
                help="Simulate with fedavg and a built-in model, or rehearse the app at a site: `fivefold site rehearse`.",
            )
    return study


def with_rounds(study: Study, rounds: int | None) -> Study:
    """The study with another number of rounds in each training. Raises `SimulationInvalid` where nothing trains."""
    if rounds is None:
        return study
    told = tuple(
        a if trained(a, study) is None else replace(a, options={**a.options, "rounds": rounds}) for a in study.analyses
    )
    if told == study.analyses and all(trained(a, study) is None for a in study.analyses):
        raise SimulationInvalid(
            "no analysis of the study trains a model, so there are no rounds to set", help="Leave --rounds out."
        )
    return replace(study, analyses=told)


def trained(analysis: Analysis, study: Study) -> TrainingSpec | None:
    """What an analysis trains; None for a method that does not."""
    spec = method(analysis.method).parse(analysis, setting_of(study))
    return spec if isinstance(spec, TrainingSpec) else None


def price(analysis: Analysis, study: Study) -> int:
    """Rounds of an analysis, at most."""
    about = method(analysis.method)
    return about.cost(about.parse(analysis, setting_of(study))).rounds


def drawn_roster(seed: int, clients: int, roster: int, which: object) -> Ids:
    """A roster, in order: without repeats, in memory that does not grow with the clients (Floyd's algorithm in NumPy)."""
    return np.sort(chance(seed, "roster", which).choice(clients, size=roster, replace=False, shuffle=False))


def _outcome(asked: Asked, totals: Mapping[str, Array], slots: tuple[str, ...], minimum: int) -> Outcome:
    try:
        return Outcome(asked.split(screen(totals, asked.fields, minimum)), slots)
    except TooFewPersons as error:
        return Outcome((), slots, (), error.code)


def _judged(totals: Totals, asked: Asked, roster: int, seed: int) -> Totals:
    """Totals in their fields' shapes, within what a roster may give; with noise where the study has it."""
    out: Totals = {}
    for f in asked.fields:
        value = np.asarray(totals[f.name]).reshape(f.shape)
        if not np.all(np.isfinite(value)):
            raise ValueNotFinite(f"a value of {f.name!r} is not a finite number", rule="finite", variable=f.name)
        if value.size and float(np.abs(value).max()) > f.bound * roster * (1 + 1e-9):
            raise OutOfBounds(
                f"a value of {f.name!r} lies beyond its public bound in round {asked.round}",
                help="A training that runs away takes a smaller learning_rate, or a `clip`.",
                rule="bound",
                variable=f.name,
            )
        out[f.name] = value if f.noise is None else _noisy(value, f, roster, chance(seed, "noise", asked.round, f.name))
    return out


def _noisy(value: Array, f: Field, roster: int, rng: np.random.Generator) -> Array:
    """The sum on its noise's grid, with the noise of a whole roster. Not for secrecy: the seed is the study's."""
    assert f.noise is not None
    steps = math.ldexp(1.0, f.noise.exponent)
    noise = np.rint(rng.normal(0.0, f.noise.share * math.sqrt(roster), f.shape))
    noisy = (np.rint(np.asarray(value, dtype=np.float64) * steps) + noise) / steps
    return np.rint(noisy).astype(np.int64) if f.kind in ("count", "cell", "persons") else noisy
