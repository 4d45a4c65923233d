"""The three kinds of question, and what comes back.

A federated computation is a sequence of secure sums: an algorithm is a generator that yields a `Sum` and receives an
`Aggregate`. What cannot be a sum says so in its type (`Relay`, `Gather`), and a site can refuse it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fivefold.protocol.results import Result

Array = npt.NDArray[Any]
Value = Any
"""What an argument may hold: None, bool, int, float, str, bytes, arrays, and tuples or string-keyed mappings of these."""

FieldKind = Literal["count", "cell", "persons", "real", "update"]
Permission = Literal["event_totals", "site_totals"]
Leaves = Literal["sum", "reply", "sealed", "state"]


WEIGHTS = "@weights"
"""A step whose sum is weighted returns the weights of the rows that it used under this name beside its fields, shape (rows,) or
(rows, k), and under `PERSONS` those rows' persons. The site's gate judges them and takes them out: a name that begins with `@`
never leaves a site."""
PERSONS = "@persons"

STATE = "@state"
"""A step that `keeps_state` returns what it wants to keep at its own site under this name, a mapping of arrays, and gets it
back as its argument `state` (None the first time). It is staged under (run, round) and committed only when the next question
shows the site among that round's survivors; it never leaves the site and dies with the run."""


@dataclass(frozen=True)
class Noise:
    """How a field is noised under differential privacy; follows from the study and the field alone (`privacy/dp/shares.py`).

    Values are whole multiples of 2^-`exponent`, and all else here counts these steps: the deviation `share` of what one site
    adds, the L2 `sensitivity` after rounding, the largest absolute value `limit` before noise, and `allowance`, which the
    summed noise of all sites exceeds in a round with a probability below 2^-40.
    """

    exponent: int
    share: float
    sensitivity: float
    limit: int
    allowance: int


@dataclass(frozen=True)
class OwnNoise:
    """A field that follows from `steps` noisy sums at the site alone (`privacy/dp/noisy_steps.py`): in each, a person is drawn
    with probability `sampling` and moves the sum by at most `clip` in the L2 norm."""

    steps: int
    sampling: float
    clip: float


@dataclass(frozen=True)
class Field:
    """One named part of an answer, with its public bound.

    `bound` is the largest absolute value that *one site* may put into any one element. It is public: derived from the
    study and the dictionary alone, never from a site's own numbers. The ring's scale follows from it.

    Kinds: `persons` (a number of distinct persons; below the study's minimum the run ends), `cell` (a count of persons in a
    table cell; a total in 1..minimum-1 comes back as NaN), `count` (an exact non-negative integer without that rule, such
    as rows or missing values), `real` (a number in Z_2^128), `update` (a model update in Z_2^32).
    """

    name: str
    kind: FieldKind
    bound: float
    shape: tuple[int, ...] = ()
    sensitivity: float | None = None
    """The most by which one protected unit (a person's rows all together, or the site where the study says `unit: site`) can
    change this array at one site, in the L2 norm; the step keeps to it. None: unknown, so no noise can protect it and a study
    with differential privacy cannot ask it."""
    noise: Noise | None = None
    """Filled in where the study has differential privacy; it does not travel."""
    own: OwnNoise | None = None
    """Where the site's step adds all the noise itself, from what the gate hands it; the sum then adds none."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"field {self.name!r}: its bound must be finite and above 0, not {self.bound}")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class SiteStep:
    """A function that runs beside the rows. It travels as its identity (`glm.score_and_information/1`), never as code."""

    name: str
    version: int
    leaves: Leaves
    function: Callable[..., Mapping[str, Any]]
    keeps_state: bool = False
    draws: bool = False
    """It takes noisy steps: its argument `noise` comes from the site's gate, and without it it cannot answer."""

    @property
    def identity(self) -> str:
        return f"{self.name}/{self.version}"

    def __call__(self, table: Any, **arguments: Value) -> Mapping[str, Any]:
        return self.function(table, **arguments)


def site_step(
    name: str, *, leaves: Leaves = "sum", version: int = 1, keeps_state: bool = False, draws: bool = False
) -> Callable[[Callable[..., Mapping[str, Any]]], SiteStep]:
    """Mark the half of an algorithm that runs beside the rows: `step(table, **arguments) -> {field name: array}`."""

    def mark(function: Callable[..., Mapping[str, Any]]) -> SiteStep:
        return SiteStep(name, version, leaves, function, keeps_state, draws)

    return mark


@dataclass(frozen=True)
class Buffer:
    """A sum among `size` sites, each with an answer that it may have computed to an earlier question of the same analysis. The
    fields in `weighed` count for less the earlier that was (`replay/buffered.py`)."""

    size: int
    weighed: tuple[str, ...]


@dataclass(frozen=True)
class Sum:
    """Ask every site; only the total over sites comes back.

    `needs` names what each site's own policy must permit beyond a sum: `event_totals` (totals at single event times) and
    `site_totals` (an answer laid out by site, so that each site's own total shows).
    """

    step: SiteStep
    fields: tuple[Field, ...]
    arguments: Mapping[str, Value] = field(default_factory=dict)
    needs: tuple[Permission, ...] = ()
    buffer: Buffer | None = None
    """Where the sum is filled as answers come (FedBuff); None: every site is asked and answers this very question."""

    def __post_init__(self) -> None:
        names = [f.name for f in self.fields]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.step.identity}: two fields share a name in {names}")


@dataclass(frozen=True)
class Gather:
    """Ask sites for individual replies. A site answers only where its own policy admits this step by name."""

    step: SiteStep
    fields: tuple[Field, ...]
    arguments: Mapping[str, Value] = field(default_factory=dict)
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relay:
    """Carry sealed messages between named parties; opaque to the coordinator."""

    step: SiteStep
    arguments: Mapping[str, Value] = field(default_factory=dict)
    parties: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint, not a question: the state from which the method can start again (the journal before it is pruned)."""

    state: Mapping[str, Value]


@dataclass(frozen=True)
class Aggregate(Mapping[str, Array]):
    """The total over the sites that answered: read-only arrays by field name.

    `sites` are the survivors of the round, `dropped` those of the roster that did not answer. `stop_requested` asks the
    method to return its result so far.
    """

    totals: Mapping[str, Array]
    sites: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    stop_requested: bool = False

    def __getitem__(self, name: str) -> Array:
        return self.totals[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.totals)

    def __len__(self) -> int:
        return len(self.totals)


Question = Sum | Gather | Relay | tuple[Sum, ...]
Rounds = Generator[Any, Any, "Result"]
"""A method: yields `Sum` (receives `Aggregate`), a tuple of `Sum`s (receives a tuple of `Aggregate`s, one round), or a
`Snapshot` (receives None); returns a `Result`."""


def read_only(array: npt.ArrayLike) -> Array:
    """A read-only float64 or int64 copy, as every aggregate arrives."""
    out = np.array(array)
    out.setflags(write=False)
    return out
