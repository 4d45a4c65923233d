"""A site's rows as a model reads them, in an order and a split that depend on the study's seed and the rows alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.cohort import Floats, select
from fivefold.algorithms.design import Scaling, design, matrix
from fivefold.models.model import ByRow, Model, ModelSpec, Weights, build, flat, named
from fivefold.study.table import Table


@dataclass(frozen=True)
class Part:
    """Rows for training or for evaluation: x (rows, features), y (rows,), person (rows,)."""

    x: Floats
    y: Floats
    person: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: npt.NDArray[Any]) -> Part:
        return Part(self.x[rows], self.y[rows], self.person[rows])


@dataclass(frozen=True)
class Pull:
    """What bends a site's descent beside its own gradient: `drift` is added to it (SCAFFOLD), and so is mu·(w - anchor)
    (FedProx), where the anchor is where the round began; with `free`, a mask (size,), the other weights stay (FedRep)."""

    mu: float = 0.0
    drift: Floats | None = None
    free: npt.NDArray[np.bool_] | None = None


def problem(table: Table, fit: Mapping[str, Any]) -> tuple[Model, Part, Part]:
    """The model, the rows to train on and the rows to evaluate on (the same ones where nothing is held out)."""
    model = ModelSpec.of(fit["model"])
    cases = select(table, fit["variables"], fit["subgroup"])
    columns = design(fit["formula"], table.dictionary)
    constants = Scaling(np.asarray(fit["centre"]), np.asarray(fit["scale"]))
    x = matrix(columns, cases, constants)[:, [bool(c.variables) for c in columns.columns]]
    middle, unit = (float(v) for v in fit["unit"])
    rows = _ordered(Part(x, (cases[columns.formula.outcome] - middle) / unit, cases.person))
    if not fit["holdout"]:
        return build(model), rows, rows
    who = by_content(rows) if fit.get("by_content") else rows.person
    kept = held_out(who, table.site, int(fit["seed"]), float(fit["holdout"]))
    return build(model), rows.take(~kept), rows.take(kept)


def _ordered(part: Part) -> Part:
    """The rows sorted by what they hold, so that a file in another order trains the same model."""
    return part.take(np.lexsort((part.y, *part.x.T[::-1])))


def held_out(person: npt.NDArray[np.int64], site: str, seed: int, share: float) -> npt.NDArray[np.bool_]:
    """Which rows are kept for evaluation: whole persons, by a hash of their number at the site."""
    return _uniform(person, _key("holdout", seed, site)) < share


def by_content(rows: Part) -> npt.NDArray[np.int64]:
    """A number for each row's person that follows from that person's own rows alone, whoever else there is, shape (rows,).

    Under differential privacy of persons: the dense numbers of the others shift when a person goes, and with them who is held
    out; then one person would change everybody's part.
    """
    bits = (np.column_stack([rows.x, rows.y]) + 0.0).view(np.uint64)  # -0 is 0
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in bits.T:
        mixed = _mixed(mixed ^ column)
    _, at = np.unique(rows.person, return_inverse=True)
    total = np.zeros(int(at.max(initial=-1)) + 1, dtype=np.uint64)
    np.add.at(total, at, mixed)  # modulo 2^64, so in any order
    return total[at].view(np.int64)


def _uniform(values: npt.NDArray[np.int64], key: int) -> Floats:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of each value, as a number in [0, 1)."""
    with np.errstate(over="ignore"):
        return np.asarray(_mixed(values.astype(np.uint64) + np.uint64(key)).astype(np.float64) / 2.0**64)


def _mixed(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = z * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _key(*words: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big")


def first_weights(model: Model, seed: int) -> Floats:
    """Where every training of a study begins, at each site and where no row is; shape (size,)."""
    return flat(model.initial(np.random.Generator(np.random.Philox(key=seed))))


def chance(seed: int, site: str, round: int, *words: object) -> np.random.Generator:
    """A site's randomness in a round (never for secrecy): from the study's seed, so that any engine gives the same."""
    return np.random.Generator(np.random.Philox(key=_key("local", seed, site, round, *words)))


def batches(rows: int, size: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """One epoch: all rows at once (size 0, or one that holds them all), or in random batches, the last one as it falls."""
    if not 0 < size < rows:
        return [np.arange(rows)] if rows else []
    order = rng.permutation(rows)
    return [order[i : i + size] for i in range(0, rows, size)]


def descend(
    model: Model, start: Weights, rows: Part, *, epochs: int, batch_size: int, rate: float, rng: np.random.Generator, pull: Pull
) -> tuple[dict[str, Floats], int]:
    """The weights after some epochs of descent from `start`, and how many steps that took."""
    weights, steps, anchor = dict(start), 0, flat(start)
    bent = bool(pull.mu) or pull.drift is not None or pull.free is not None
    for _ in range(epochs):
        for chosen in batches(len(rows), batch_size, rng):
            moved = model.descend(weights, rows.x[chosen], rows.y[chosen], rate)
            if bent:
                before, after = flat(weights), flat(moved)
                after -= rate * pull.mu * (before - anchor)
                if pull.drift is not None:
                    after -= rate * pull.drift
                moved = named(after if pull.free is None else np.where(pull.free, after, before), model.shapes)
            weights, steps = dict(moved), steps + 1
    return weights, steps


def clipped(vector: Floats, most: float) -> Floats:
    """The vector, shortened to an L2 norm of at most `most` (0: as it is)."""
    size = norm(vector)
    return vector if not most or size <= most else vector * (most / size)


def norm(vector: Floats) -> float:
    """The L2 norm, always added up in the same order."""
    return float(np.sqrt(np.square(vector).sum()))


def person_gradients(model: Model, weights: Weights, rows: Part, most: float) -> tuple[Floats, Floats]:
    """The sum over persons of the gradient of each one's own mean loss, each clipped to an L2 norm of `most`, shape
    (size,); and the norms before they were clipped, shape (persons,).

    Each is cut off to a grid on which the sum over up to 2^26 persons is exact, so that no error of addition, which hangs on
    who else is there, makes one person count for more.
    """
    bits = 26 - math.frexp(most)[1]
    total, norms = np.zeros(sum(w.size for w in weights.values())), list[float]()
    for gradient in _each_person(model, weights, rows, of_persons(rows)):
        total += np.ldexp(np.trunc(np.ldexp(clipped(gradient, most), bits)), -bits)
        norms.append(norm(gradient))
    return total, np.array(norms)


def of_persons(rows: Part) -> list[npt.NDArray[np.int64]]:
    """The places of each person's rows, one array a person; none without rows."""
    if not len(rows):
        return []
    order = np.argsort(rows.person, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(rows.person[order]) != 0) + 1)


PERSONS = 256
"""Persons whose gradients a model may hold at once."""


def _each_person(model: Model, weights: Weights, rows: Part, persons: Sequence[npt.NDArray[np.int64]]) -> Iterator[Floats]:
    """The gradient of each person's own mean loss, shape (size,); many rows in one call where the model can."""
    if not isinstance(model, ByRow):
        for chosen in persons:
            yield flat(model.loss_and_gradient(weights, rows.x[chosen], rows.y[chosen])[1])
        return
    for first in range(0, len(persons), PERSONS):
        here = persons[first : first + PERSONS]
        chosen = np.concatenate(here)
        found = model.row_gradients(weights, rows.x[chosen], rows.y[chosen])
        for own in np.split(found, np.cumsum([len(p) for p in here])[:-1]):
            yield own.mean(axis=0)
