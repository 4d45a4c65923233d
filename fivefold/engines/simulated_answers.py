"""What a share of a roster answers: the sum over its clients, and nothing of any one of them.

Three ways to one sum. Local updates of a linear model are made for a block of clients in one call of NumPy
(`algorithms/training_vectorised.py`), those of a network in one of PyTorch (`algorithms/training_networks.py`). Steps that add
up over persons are asked once of all rows together. Any other step is called client by client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms import training_networks as networks
from fivefold.algorithms import training_vectorised as linear
from fivefold.algorithms.cohort import select
from fivefold.algorithms.design import Scaling, design, matrix
from fivefold.engines.simulated_clients import Clients, Ids, Merged, padded
from fivefold.errors import AnswerMalformed, SimulationInvalid
from fivefold.models.model import ModelSpec
from fivefold.plugins import method
from fivefold.protocol.questions import STATE, Array, SiteStep
from fivefold.replay.cursor import Asked

SHARE = 100
"""Clients whose rows are held at a time."""
OVER_PERSONS = (
    "cohort.count",
    *(f"training.{name}" for name in ("persons", "evaluate", "evaluate_persons", "person_gradients")),
)
"""Steps whose answer over the rows of several clients is the sum of their answers."""
Totals = dict[str, Array]
Blocks = linear.Blocks | networks.Networks


@dataclass(frozen=True)
class Request:
    """A question as it goes to whoever answers a share: steps by name and version, never as code."""

    analysis: str
    method: str
    sums: tuple[tuple[str, Mapping[str, Any], tuple[str, ...]], ...]
    """(identity of the step, arguments, names of its fields), in order."""
    prefixes: tuple[str, ...]
    """Before the names of each sum's fields."""
    slots: tuple[str, ...] = ()
    """What clients are called, where the roster stays the same for the whole analysis; else each by its own number."""

    @classmethod
    def of(cls, asked: Asked, slots: tuple[str, ...] = ()) -> Request:
        sums = asked.sums
        several = len(sums) > 1
        return cls(
            asked.analysis.name,
            asked.method,
            tuple((s.step.identity, s.arguments, tuple(f.name for f in s.fields)) for s in sums),
            tuple(f"{i}." if several else "" for i in range(len(sums))),
            slots,
        )

    def name(self, place: int, client: int) -> str:
        return self.slots[place] if self.slots else f"client-{client}"


@dataclass
class Share:
    """Some clients of a roster, their rows read once for all sums of a question."""

    clients: Clients
    ids: Ids
    first: int
    """The place of the first of them in the roster."""
    _merged: Merged | None = field(default=None, repr=False)

    @property
    def merged(self) -> Merged:
        if self._merged is None:
            self._merged = self.clients.merged(self.ids)
        return self._merged


Kept = dict[tuple[str, str, int], Mapping[str, Array]]
"""What steps keep at their clients: by (analysis, place and step, client)."""


def total_of(request: Request, clients: Clients, ids: Ids, kept: Kept | None = None, first: int = 0) -> Totals:
    """The sum over these clients by field name. `first` is the place in the roster of the first one. `kept`: what steps keep
    between rounds; None refuses steps that keep anything (`SimulationInvalid`)."""
    steps = {s.identity: s for s in method(request.method).steps}
    totals: Totals = {}
    blocks: dict[int, Blocks] = {}
    for at in range(0, len(ids), SHARE):
        share = Share(clients, ids[at : at + SHARE], first + at)
        for i, (identity, arguments, names) in enumerate(request.sums):
            step = steps[identity]
            if _by_blocks(step, arguments):
                _add(totals, request.prefixes[i], names, _updates(blocks, i, share, arguments))
            elif _over_persons(step, arguments):
                _add(totals, request.prefixes[i], names, step(share.merged.table, **arguments))
            else:
                for answer in _one_by_one(request, i, step, arguments, share, kept):
                    _add(totals, request.prefixes[i], names, answer)
    for i, block in blocks.items():
        totals[f"{request.prefixes[i]}update"] = block.total
    return totals


def answers_of(request: Request, clients: Clients, ids: Ids, kept: Kept | None = None) -> Iterator[Totals]:
    """The answer of each client by itself, as the secure sum needs them."""
    for place, client in enumerate(ids):
        yield total_of(request, clients, np.array([client]), kept, place)


def add_totals(into: Totals, other: Mapping[str, Array]) -> Totals:
    """into += other, by field."""
    for name, value in other.items():
        into[name] = value if name not in into else into[name] + value
    return into


def _add(totals: Totals, prefix: str, names: Sequence[str], answer: Mapping[str, Any]) -> None:
    if set(names) != {n for n in answer if not n.startswith("@")}:
        raise AnswerMalformed("a step answers other fields than its question has")
    for name in names:
        value, key = np.asarray(answer[name]), prefix + name
        if key not in totals:
            totals[key] = value.astype(np.int64 if value.dtype.kind in "bui" else np.float64)
        elif totals[key].shape != value.shape:
            raise AnswerMalformed(f"clients answer {name!r} in different shapes", variable=name)
        elif totals[key].dtype.kind == "i" and value.dtype.kind == "f":
            totals[key] = totals[key] + value
        elif totals[key].ndim:
            np.add(totals[key], value, out=totals[key], casting="unsafe")
        else:
            totals[key] = totals[key] + value


# ---- client by client -------------------------------------------------------------------------------------------------
def _one_by_one(
    request: Request, i: int, step: SiteStep, arguments: Mapping[str, Any], share: Share, kept: Kept | None
) -> Iterator[Mapping[str, Any]]:
    if step.keeps_state and kept is None:
        raise SimulationInvalid(
            f"{request.method} keeps something at each client, which this engine does not", help="Take --engine local."
        )
    for j, client in enumerate(share.ids):
        table = share.merged.one(j, request.name(share.first + j, int(client)))
        if not step.keeps_state or kept is None:
            yield step(table, **arguments)
            continue
        key = (request.analysis, f"{i}/{step.identity}", int(client))
        answer = dict(step(table, **arguments, state=kept.get(key)))
        kept[key] = answer.pop(STATE)
        yield answer


def _over_persons(step: SiteStep, arguments: Mapping[str, Any]) -> bool:
    fit = arguments.get("fit", {})
    return step.name in OVER_PERSONS and not arguments.get("sites") and not fit.get("holdout")


# ---- many clients in one call -----------------------------------------------------------------------------------------
def _by_blocks(step: SiteStep, arguments: Mapping[str, Any]) -> bool:
    """Whether this is FedAvg's local update of a linear model or a network, over all rows of a client at once."""
    if step.name != "training.local_update" or arguments["mu"]:
        return False
    fit, local = arguments["fit"], arguments["local"]
    return fit["model"]["kind"] in (*linear.KINDS, *networks.KINDS) and not (
        fit["holdout"] or local["batch_size"] or "count" in local
    )


def _updates(blocks: dict[int, Blocks], i: int, share: Share, arguments: Mapping[str, Any]) -> dict[str, Array]:
    """Adds this share's updates to `blocks[i]`; the answer has a zero for them, which `total_of` fills in at the end."""
    fit, local = arguments["fit"], arguments["local"]
    if i not in blocks:
        model = ModelSpec.of(fit["model"])
        many = networks.Networks if model.kind in networks.KINDS else linear.Blocks
        blocks[i] = many(model, arguments["weights"], float(arguments["rate"]), int(local["epochs"]), float(local["clip"]))
    weights = 0.0
    size = networks.BLOCK if isinstance(blocks[i], networks.Networks) else linear.BLOCK
    for x, y, held in share.clients.blocks(share.ids, size) or _blocks(share.merged, fit, size):
        weight = _weights(held, local)
        blocks[i].add(x, y, held, weight)
        weights += float(weight.sum())
    return {"update": np.zeros(())} | ({} if local["weighting"] == "site" else {"weight": np.asarray(weights)})


def _weights(held: Ids, local: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """As `training_steps.weight_of`, of several clients."""
    if local["weighting"] == "rows":
        return np.minimum(1.0, held / float(local["total_rows"]))
    return (held > 0).astype(np.float64)


def _blocks(merged: Merged, fit: Mapping[str, Any], size: int) -> Iterator[tuple[Any, Any, Ids]]:
    """The rows that `training_rows.problem` trains on, of all clients of a share."""
    client = np.repeat(np.arange(len(merged.start) - 1), np.diff(merged.start))
    tagged = {**merged.table.columns, "": client.astype(np.float64)}  # rides along through the selection of rows
    cases = select(replace(merged.table, columns=tagged), fit["variables"], fit["subgroup"])
    columns = design(fit["formula"], merged.table.dictionary)
    x = matrix(columns, cases, Scaling(np.asarray(fit["centre"]), np.asarray(fit["scale"])))
    x = x[:, [bool(c.variables) for c in columns.columns]]
    middle, unit = (float(v) for v in fit["unit"])
    y = (cases[columns.formula.outcome] - middle) / unit
    start = np.searchsorted(cases[""], np.arange(len(merged.start)))
    for a in range(0, len(start) - 1, size):
        some = start[a : a + size + 1]
        rows = slice(int(some[0]), int(some[-1]))
        yield *padded(x[rows], y[rows], some - some[0]), np.diff(some)
