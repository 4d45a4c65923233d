"""Simulated clients spread over a Ray cluster: each worker answers for its share of the roster and gives back one partial sum.

The driver sends a question and which clients; partial sums are added on the workers, two by two, and one total comes back. No
client's answer ever travels. A cluster is one domain of trust: Ray carries Python objects and runs what it is sent, so it is
for simulations and never between institutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from fivefold.engines.simulated_answers import Request, Totals, add_totals, total_of
from fivefold.engines.simulated_clients import Clients, Ids
from fivefold.errors import EngineFailed, EngineMissing, EngineProblem, FivefoldError
from fivefold.protocol.questions import Array
from fivefold.replay.cursor import Asked

SHARES_A_WORKER = 2
"""Shares of a roster for each processor of the cluster: the slow ones then hold up less."""


class RayCluster:
    """Gives the sum over a roster. `address` is that of a running cluster; empty: one of this machine, which ends with it."""

    def __init__(self, clients: Clients, address: str = "") -> None:
        ray = _imported()
        self._ray, self._own = ray, not ray.is_initialized()
        if self._own:
            try:
                ray.init(address=address or None, include_dashboard=False, log_to_driver=False, configure_logging=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise EngineFailed(
                    f"there is no Ray cluster at {address or 'this machine'}",
                    help="Start one with `ray start --head`, or leave --address out.",
                ) from error
        self._clients = ray.put(clients)
        self._answer, self._add = ray.remote(_answered), ray.remote(_added)
        self.messages = 0
        """Objects that came to the driver: one a question."""
        self.shares = 0
        """Into how many parts the last roster was cut: workers may come and go between questions."""

    def total(self, asked: Asked, request: Request, ids: Ids) -> Totals:
        """Raises what a client's step raises, and `EngineFailed` where the cluster is lost."""
        question = self._ray.put(request)
        self.shares = self._wanted(len(ids))
        parts = [self._answer.remote(question, self._clients, share, first) for share, first in _shares(ids, self.shares)]
        while len(parts) > 1:
            parts = [self._add.remote(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
        try:
            total: Mapping[str, Array] = self._ray.get(parts[0])
        except FivefoldError:
            raise
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise EngineFailed("the Ray cluster was lost", help="Look at its logs, and simulate again.") from error
        self.messages += 1
        return dict(total)

    def close(self) -> None:
        """End the cluster, if it is this one's own."""
        if self._own:
            self._ray.shutdown()

    def _wanted(self, roster: int) -> int:
        return max(1, min(roster, SHARES_A_WORKER * int(self._ray.cluster_resources().get("CPU", 1))))


def refuse_real_sites(study: object) -> NoReturn:
    """Raises `EngineProblem`: a run over sites is nothing for Ray."""
    raise EngineProblem(
        "Ray is one domain of trust: it runs simulated clients, never real sites",
        help=f"Simulate with `fivefold simulate {study} --engine ray`, or run over sites with --engine flower.",
    )


def _answered(request: Request, clients: Clients, ids: Ids, first: int) -> Totals:
    """On a worker: the sum over a share."""
    return total_of(request, clients, ids, None, first)


def _added(one: Totals, other: Totals) -> Totals:
    """On a worker. What Ray hands out is read-only, and so is not added into."""
    return add_totals(dict(one), other)


def _shares(ids: Ids, count: int) -> list[tuple[Ids, int]]:
    parts = np.array_split(ids, count)
    starts = np.cumsum([0, *(len(p) for p in parts)])
    return [(part, int(start)) for part, start in zip(parts, starts[:-1], strict=True)]


def _imported() -> Any:
    import os

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineMissing("Ray is not installed here", help="Install it: pip install 'fivefold[ray]'.") from error
    return ray
