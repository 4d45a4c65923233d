"""Where simulated clients come from: real rows that are partitioned, rows that are made up, or arrays. Made when a roster needs
them, and let go with it: memory does not grow with the clients that are in no roster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fivefold.data.partitions import Partition, chance, drawn, holding
from fivefold.errors import SimulationInvalid
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table

Ids = npt.NDArray[np.int64]
OUTCOME_BINS = 5
"""Into how many parts a numeric outcome is cut, where clients differ by outcome."""


@dataclass(frozen=True)
class Merged:
    """Rows of several clients in one table, client after client: client i holds rows start[i]:start[i + 1]. No person is at two
    of them."""

    table: Table
    start: Ids

    def one(self, i: int, name: str) -> Table:
        """The rows of client i, as a site of this name would hold them."""
        part = replace(self.table.take(np.arange(self.start[i], self.start[i + 1])), site=name)
        _, person = np.unique(part.person, return_inverse=True)
        return replace(part, person=person.astype(np.int64))


class Clients(Protocol):
    """`count` clients, numbered from 0; `about` says in words what they are."""

    @property
    def count(self) -> int: ...

    @property
    def about(self) -> str: ...

    def merged(self, ids: Ids) -> Merged:
        """The rows of these clients."""

    def blocks(self, ids: Ids, size: int) -> Iterator[tuple[Any, Any, Ids]] | None:
        """Arrays (x, y, rows held) of up to `size` clients at a time, where clients have them ready for a model; else None."""


@dataclass(frozen=True)
class RealRows:
    """Clients over real rows: each draws its own from all of them by `partition`, about `rows` each; `natural` gives each row
    to the client that its group names. `label` (rows,) is the index of each row's outcome."""

    count: int
    pool: Table
    partition: Partition
    rows: int
    seed: int
    label: Ids
    group: Ids | None = None
    _by: tuple[Ids, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        key = self.label if self.group is None else self.group
        order = np.argsort(key, kind="stable")
        edges = np.searchsorted(key[order], np.arange(int(key.max(initial=-1)) + 2))
        object.__setattr__(self, "_by", tuple(order[a:b] for a, b in pairwise(edges)))

    @property
    def about(self) -> str:
        return f"{len(self.pool):,} real rows, partitioned {self.partition}"

    def of(self, client: int) -> Ids:
        """Which rows of the pool a client holds."""
        if self.group is not None:
            return self._by[client]
        rng = chance(self.seed, "client", client)
        prior = np.array([len(rows) for rows in self._by]) / len(self.pool)
        wanted = holding(self.partition, self.rows, prior, rng)
        return np.concatenate([self._by[c][drawn(int(n), len(self._by[c]), rng)] for c, n in enumerate(wanted) if n])

    def merged(self, ids: Ids) -> Merged:
        parts = [self.of(int(i)) for i in ids]
        start = np.cumsum([0, *(len(p) for p in parts)])
        table = self.pool.take(np.concatenate(parts))
        if self.group is None:  # a row that is drawn is a person of its own
            return Merged(replace(table, person=np.arange(len(table))), start)
        most = int(self.pool.person.max(initial=0)) + 1
        of_client = np.repeat(np.arange(len(ids)), np.diff(start))
        return Merged(replace(table, person=table.person + most * of_client), start)

    def blocks(self, ids: Ids, size: int) -> None:
        return None


@dataclass(frozen=True)
class MadeUpRows:
    """Clients whose rows are made up from the dictionary: first the outcome, then every other number around a middle that
    depends on it, so that there is something to learn."""

    count: int
    dictionary: Dictionary
    outcome: str
    partition: Partition
    rows: int
    seed: int

    @property
    def about(self) -> str:
        return f"rows made up from the dictionary, partitioned {self.partition}"

    def merged(self, ids: Ids) -> Merged:
        outcomes = outcome_count(self.dictionary[self.outcome]) if self.outcome else 1
        prior = np.full(outcomes, 1 / outcomes)
        labels, uniform, normal = [], [], []
        width = len(self.dictionary.variables)
        for i in ids:
            rng = chance(self.seed, "client", int(i))
            label = rng.permutation(np.repeat(np.arange(outcomes), holding(self.partition, self.rows, prior, rng)))
            labels.append(label)
            uniform.append(rng.random(len(label)))
            normal.append(rng.standard_normal((len(label), width), dtype=np.float32))
        start = np.cumsum([0, *(len(x) for x in labels)])
        label, u, z = np.concatenate(labels), np.concatenate(uniform), np.concatenate(normal)
        columns = {}
        for j, (name, variable) in enumerate(self.dictionary.variables.items()):
            if name == self.outcome:
                columns[name] = _outcome_values(variable, label, outcomes, u)
            else:
                middle = chance(self.seed, "middle", name).normal(0.0, 0.4, outcomes)
                columns[name] = _values(variable, np.clip(middle[label] + 0.35 * z[:, j], -1.0, 1.0))
        return Merged(Table("simulated", self.dictionary, columns, np.arange(len(label))), start)

    def blocks(self, ids: Ids, size: int) -> None:
        return None


@dataclass(frozen=True)
class ArrayClients:
    """Clients as arrays, already on the model's scale: x (clients, rows, features), y (clients, rows) the outcome's value or
    index. For benchmarks and for simulations from Python; the study's analysis has to leave its numbers as they are (each
    feature's range -1 to 1 in the dictionary, `scaling: range`)."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    dictionary: Dictionary
    features: Sequence[str]
    outcome: str

    @property
    def count(self) -> int:
        return len(self.x)

    @property
    def about(self) -> str:
        return "arrays"

    def merged(self, ids: Ids) -> Merged:
        rows, p = self.x.shape[1:]
        flat = np.asarray(self.x[ids], dtype=np.float64).reshape(len(ids) * rows, p)
        columns: dict[str, Any] = {name: flat[:, j] for j, name in enumerate(self.features)}
        columns[self.outcome] = np.asarray(self.y[ids], dtype=np.float64).reshape(-1)
        return Merged(Table("simulated", self.dictionary, columns, np.arange(len(flat))), np.arange(len(ids) + 1) * rows)

    def blocks(self, ids: Ids, size: int) -> Iterator[tuple[Any, Any, Ids]]:
        buffer = np.empty((min(size, len(ids)), *self.x.shape[1:]), dtype=self.x.dtype)
        for first in range(0, len(ids), size):
            here = ids[first : first + size]
            x = np.take(self.x, here, axis=0, out=buffer[: len(here)], mode="clip")
            yield x, self.y[here], np.full(len(here), self.x.shape[1])


def real_rows(
    tables: Sequence[Table], outcome: str, partition: Partition, *, clients: int | None, rows: int, seed: int
) -> RealRows:
    """Clients over the rows of a study's sites. `outcome` is the variable by which clients may differ (empty: none).
    `clients` None: as many as a natural partition has, else 1,000. Raises `SimulationInvalid`."""
    pool = _pooled(tables)
    label = _labels(pool, outcome, partition)
    if partition.kind != "natural":
        return RealRows(clients or 1_000, pool, partition, rows, seed, label)
    group = _groups(tables, pool, partition.variable)
    there = int(group.max()) + 1
    if clients is not None and clients > there:
        raise SimulationInvalid(
            f"the partition {partition} has {there:,} clients, and {clients:,} were asked for",
            help=f"Write --clients {there} or less, or a partition in which clients draw rows, such as dirichlet:0.3.",
        )
    return RealRows(clients or there, pool, partition, rows, seed, label, group)


def made_up_rows(
    dictionary: Dictionary, outcome: str, partition: Partition, *, clients: int | None, rows: int, seed: int
) -> MadeUpRows:
    """Clients with rows of the dictionary's making. Raises `SimulationInvalid`."""
    if partition.kind == "natural":
        raise SimulationInvalid(
            "a natural partition needs real rows", help="Name the site folders with --sites, or take another partition."
        )
    if partition.by_outcome and not outcome:
        raise SimulationInvalid(f"the partition {partition} needs an analysis with one outcome", help=NO_OUTCOME)
    for name, variable in dictionary.variables.items():
        if variable.type == "text":
            raise SimulationInvalid(
                f"no text can be made up for {name!r}", help="Simulate with real rows (--sites).", variable=name
            )
    return MadeUpRows(clients or 1_000, dictionary, outcome, partition, rows, seed)


NO_OUTCOME = "Take iid, quantity or natural, or put an analysis such as `y ~ x` first."


def outcome_count(variable: Variable) -> int:
    """Into how many outcomes a variable falls: its categories, or parts of its range."""
    if variable.levels:
        return len(variable.levels)
    two = variable.type == "integer" and (variable.minimum, variable.maximum) == (0, 1)
    return 2 if two else OUTCOME_BINS


def _pooled(tables: Sequence[Table]) -> Table:
    first = tables[0]
    columns = {n: np.concatenate([t[n] for t in tables]) for n in first.columns}
    start = np.cumsum([0, *(int(t.person.max(initial=-1)) + 1 for t in tables)])
    person = np.concatenate([t.person + s for t, s in zip(tables, start[:-1], strict=True)])
    if not len(person):
        raise SimulationInvalid("the sites have no row to simulate with", help="Look at `fivefold site inspect`.")
    return Table("simulated", first.dictionary, columns, person)


def _labels(pool: Table, outcome: str, partition: Partition) -> Ids:
    """The outcome of each row as an index; all 0 where clients do not differ by it."""
    if not partition.by_outcome:
        return np.zeros(len(pool), dtype=np.int64)
    if not outcome:
        raise SimulationInvalid(f"the partition {partition} needs an analysis with one outcome", help=NO_OUTCOME)
    values, outcomes = pool[outcome], outcome_count(pool.variable(outcome))
    known = values[~np.isnan(values)]
    if outcomes == OUTCOME_BINS and not pool.variable(outcome).levels:
        edges = np.quantile(known, np.arange(1, outcomes) / outcomes) if len(known) else np.zeros(0)
        return np.searchsorted(edges, np.nan_to_num(values), side="right").astype(np.int64)
    return np.nan_to_num(values).astype(np.int64)


def _groups(tables: Sequence[Table], pool: Table, variable: str) -> Ids:
    if not variable:
        return np.repeat(np.arange(len(tables)), [len(t) for t in tables])
    if variable == "person":
        key: npt.NDArray[Any] = pool.person
    elif variable in pool.columns:
        key = np.nan_to_num(pool[variable], nan=np.inf)
    else:
        raise SimulationInvalid(
            f"the study has no variable {variable!r}",
            help=f"Write natural:NAME with one of: {', '.join(pool.columns)}, person.",
        )
    _, group = np.unique(key, return_inverse=True)
    return group.astype(np.int64)


def _values(variable: Variable, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values of a variable from numbers in [-1, 1]."""
    if variable.levels:
        many = len(variable.levels)
        return np.minimum(np.floor((scaled + 1) / 2 * many), many - 1)
    low = 0.0 if variable.minimum is None else variable.minimum
    high = low + 1.0 if variable.maximum is None else variable.maximum
    value = (low + high) / 2 + scaled * (high - low) / 2
    return np.rint(value) if variable.type in ("integer", "date") else value


def _outcome_values(variable: Variable, label: Ids, outcomes: int, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if variable.levels or outcomes == 2:
        return label.astype(np.float64)
    return _values(variable, 2 * (label + uniform) / outcomes - 1)


def padded(x: npt.NDArray[Any], y: npt.NDArray[Any], start: Ids) -> tuple[Any, Any]:
    """Rows of several clients as (clients, most rows, features) and (clients, most rows), zeros where a client has fewer."""
    held = np.diff(start)
    most = max(int(held.max(initial=0)), 1)
    wide, tall = np.zeros((len(held), most, x.shape[1])), np.zeros((len(held), most))
    client = np.repeat(np.arange(len(held)), held)
    place = np.arange(len(x)) - np.repeat(start[:-1], held)
    wide[client, place], tall[client, place] = x, y
    return wide, tall
