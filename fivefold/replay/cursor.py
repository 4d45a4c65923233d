"""Where a run stands: the study's analyses, one generator after the other, and the question that is open now.

The coordinator and every site hold a cursor each and feed it the same outcomes; so each site derives the question itself and no
coordinator can ask what the signed study does not ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from fivefold.algorithms.method import Method, Setting
from fivefold.errors import FivefoldError, MethodError, Refused
from fivefold.plugins import method
from fivefold.privacy.dp.shares import Sharing, noisy
from fivefold.protocol.questions import (
    Aggregate,
    Array,
    Buffer,
    Field,
    Gather,
    Question,
    Relay,
    Rounds,
    Snapshot,
    Sum,
    read_only,
)
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis, Study


@dataclass(frozen=True)
class Ended:
    """An analysis that ended in a sentence instead of a result: too few persons, separation, no convergence."""

    code: str
    message: str
    help: str
    exit_code: int
    variable: str = ""

    @classmethod
    def of(cls, error: FivefoldError) -> Ended:
        return cls(error.code, error.message, error.hint, error.exit_code, error.variable)


@dataclass(frozen=True)
class Outcome:
    """What came of a round: totals by field (one mapping for each `Sum` of the question), or how it ended the analysis."""

    totals: tuple[Mapping[str, Array], ...]
    sites: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    ended: str = ""
    """`TooFewPersons` where a total of persons lies below the study's minimum: no number is kept."""


@dataclass(frozen=True)
class Asked:
    """The open question: its round (from 1, over the whole run), the analysis it serves, and its `Sum`s."""

    round: int
    analysis: Analysis
    method: str
    question: Sum | Gather | Relay | tuple[Sum, ...]
    sharing: Sharing | None = None
    """Who adds noise, where the study has differential privacy: every field then has its `Noise`. For a buffer its members
    alone."""
    version: int = 0
    """How many buffers of this analysis were filled before."""

    @property
    def sums(self) -> tuple[Sum | Gather, ...]:
        """The parts of the question: its sums, or the one step whose replies are gathered."""
        if self.gathered:
            return _alone(self.question, self.sharing)
        if isinstance(self.question, Sum):
            return (self.question,)
        if isinstance(self.question, tuple):
            return self.question
        raise Refused(
            f"the question {self.question.step.identity} of round {self.round} is not a sum", rule="anything_but_a_sum"
        )

    @property
    def gathered(self) -> bool:
        """Whether single sites' replies come back, in place of their sum."""
        parts = self.question if isinstance(self.question, tuple) else (self.question,)
        return any(isinstance(one, Gather) for one in parts)

    @property
    def buffer(self) -> Buffer | None:
        """Among how many sites the sum is, where it is a buffer. Raises `Refused` for a buffer beside another sum."""
        return _buffer(self.question)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of all sums in order, named `index.name` where there are several sums."""
        sums = self.sums
        plain = sums[0].fields
        if len(sums) > 1:
            plain = tuple(replace(f, name=f"{i}.{f.name}") for i, s in enumerate(sums) for f in s.fields)
        return plain if self.sharing is None else _noisy(plain, self.sharing)

    def split(self, totals: Mapping[str, Array]) -> tuple[Mapping[str, Array], ...]:
        """Totals by field name → one mapping for each sum."""
        if len(self.sums) == 1:
            return (totals,)
        return tuple({f.name: totals[f"{i}.{f.name}"] for f in s.fields} for i, s in enumerate(self.sums))

    def join(self, answers: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
        """The inverse of `split`."""
        if len(answers) == 1:
            return answers[0]
        return {f"{i}.{name}": value for i, answer in enumerate(answers) for name, value in answer.items()}


def _alone(question: Any, sharing: Sharing | None) -> tuple[Gather, ...]:
    """The one step whose replies are gathered. Raises `Refused` where its replies would show what no site may show alone."""
    parts = question if isinstance(question, tuple) else (question,)
    one = parts[0]
    if len(parts) > 1 or not isinstance(one, Gather) or one.sites:
        raise Refused("replies are gathered alone, and from all sites of the analysis", rule="gather")
    if sharing is not None or any(f.kind not in ("update", "real") for f in one.fields):
        raise Refused("single sites' counts, and replies that need noise, are not gathered", rule="gather")
    return (one,)


def _buffer(question: Question) -> Buffer | None:
    sums = question if isinstance(question, tuple) else (question,) if isinstance(question, Sum) else ()
    found = [one.buffer for one in sums if isinstance(one, Sum) and one.buffer is not None]
    if found and len(sums) > 1:
        raise Refused("a buffer is asked together with another sum", rule="buffer")
    return found[0] if found else None


@lru_cache(maxsize=16)
def _noisy(fields: tuple[Field, ...], sharing: Sharing) -> tuple[Field, ...]:
    return noisy(fields, sharing)


def setting_of(study: Study) -> Setting:
    """The public surroundings that every analysis of the study shares."""
    return Setting(
        dictionary=study.phenotypes,
        sites=tuple(s.name for s in study.sites),
        minimum_persons=study.privacy.minimum_persons,
        max_rows_per_site=study.privacy.max_rows_per_site,
        seed=study.seed,
        differential_privacy=study.privacy.differential_privacy,
        colluders=study.privacy.colluders,
    )


@dataclass(frozen=True)
class Checkpoint:
    """A snapshot of an analysis, and where in the run it was taken: after `round`, the analysis having begun after `begun`, at
    this `version` of its weights."""

    analysis: str
    begun: int
    round: int
    persons: int | None
    version: int
    state: Snapshot


@dataclass
class Cursor:
    """Runs the analyses in order. `open` is the question now asked; None when all is done. `persons` is the open analysis' own
    total of persons over all sites, once a round has told it.

    `checkpoints` are the last snapshots by analysis: those given at the start are where their analyses begin. `taken` is the
    one that the last `feed` brought."""

    study: Study
    analyses: tuple[Analysis, ...] = ()
    results: dict[str, Result | Ended] = field(default_factory=dict)
    open: Asked | None = None
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    taken: Checkpoint | None = None
    persons: int | None = None
    _round: int = 0
    _version: int = 0
    _begun: int = 0
    _at: int = -1
    _generator: Rounds | None = None

    def __post_init__(self) -> None:
        self.analyses = self.analyses or self.study.analyses
        self._setting = setting_of(self.study)
        self._next_analysis()

    def feed(self, outcome: Outcome, *, stop: bool = False) -> None:
        """Give the aggregate of the open round to its analysis and move to the next question."""
        asked, self.taken = self.open, None
        if asked is None or self._generator is None:
            raise ValueError("no question is open")
        if outcome.ended:
            self._generator.close()
            self._finish(too_few_persons(asked, self.study.privacy.minimum_persons))
            return
        for one, totals in zip(asked.sums if outcome.totals else (), outcome.totals, strict=True):
            told = [int(totals[f.name]) for f in one.fields if f.kind == "persons" and f.shape == ()]
            self.persons = told[0] if told else self.persons
        aggregates = tuple(
            Aggregate({n: read_only(v) for n, v in t.items()}, outcome.sites, outcome.dropped, stop) for t in outcome.totals
        )
        self._version += asked.buffer is not None
        self._advance(aggregates if isinstance(asked.question, tuple) else aggregates[0])

    def passed(self, round: int) -> bool:
        """Whether a snapshot holds what came of this round."""
        return self.open is not None and round < self.open.round

    def close(self) -> None:
        if self._generator is not None:
            self._generator.close()

    def _next_analysis(self) -> None:
        self._at += 1
        self._version = 0
        if self._at >= len(self.analyses):
            self.open, self._generator = None, None
            return
        analysis, self.persons = self.analyses[self._at], None
        self._method: Method = method(analysis.method)
        spec, kept = self._method.parse(analysis, self._setting), self.checkpoints.get(analysis.name)
        self._begun = self._round if kept is None else kept.begun
        if kept is None:
            self._generator = self._method.rounds(spec)
        else:
            self._generator = self._method.rounds(spec, kept.state)
            self._round, self.persons, self._version = kept.round, kept.persons, kept.version
        self._advance(None)

    def _advance(self, sent: Any) -> None:
        assert self._generator is not None
        try:
            question = self._generator.send(sent)
            while isinstance(question, Snapshot):
                name = self.analyses[self._at].name
                self.taken = Checkpoint(name, self._begun, self._round, self.persons, self._version, question)
                self.checkpoints[name] = self.taken
                question = self._generator.send(None)
        except StopIteration as done:
            self._finish(done.value)
        except (MethodError, Refused) as error:
            self._finish(Ended.of(error))
        else:
            self._round += 1
            sharing, buffer = self._setting.sharing, _buffer(question)
            if sharing is not None and buffer is not None:
                sharing = replace(sharing, sites=buffer.size)
            self.open = Asked(
                self._round, self.analyses[self._at], self._method.name, question, sharing, self._version
            )  # fmt: skip

    def _finish(self, result: Result | Ended) -> None:
        self.results[self.analyses[self._at].name] = result
        self._next_analysis()


def too_few_persons(asked: Asked, minimum: int) -> Ended:
    """The sentence for a total under the minimum; it names the analysis and never the number."""
    from fivefold.errors import TooFewPersons

    error = TooFewPersons(f"analysis {asked.analysis.name!r}: fewer than {minimum} persons remain over all sites")
    return Ended.of(error)
