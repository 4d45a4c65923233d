"""The class rule: what exact sums reveal over time.

A secure sum hides a site in one answer, not in two: over S, and later over S without j, exact sums differ by j's own total. So
over all exact sums answered on a data asset, in every run and study, sites are sorted by their pattern of membership in the
survivor sets. Whatever linear combination of the totals somebody forms, the sites of a class enter it with one coefficient;
so each class must be a crowd, whatever was asked.

Sites are told apart by their public keys (hex): a name is what a study's lead gives, and may mean another site elsewhere.
A site with a new key counts as a new site, which errs on the safe side.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fivefold.errors import DifferencingRefused
from fivefold.records.journal import Journal, read

ALONE = 2
"""The least that a class may hold besides colluders: a class of one is a site's own total, which its custodian may permit."""

Pattern = tuple[bool, ...]


@dataclass(frozen=True)
class Answered:
    """An exact sum: the sites in it (the survivors), and those of them whose custodian had permitted `site_totals`."""

    sites: frozenset[str]
    permitted: frozenset[str] = frozenset()


def classes(sets: Sequence[frozenset[str]], roster: Iterable[str] = ()) -> Mapping[Pattern, frozenset[str]]:
    """Sites by their pattern of membership in the sets.

    The sites that are in every set form a class like any other. Sites of the roster that are in none stand under the pattern
    that is false throughout: no total contains them, so the rule has nothing to ask of them.
    """
    found: dict[Pattern, set[str]] = {}
    for site in frozenset(roster).union(*sets):
        found.setdefault(tuple(site in s for s in sets), set()).add(site)
    return {pattern: frozenset(sites) for pattern, sites in found.items()}


def check(
    history: Iterable[Answered],
    new: frozenset[str],
    *,
    minimum_difference: int,
    colluders: int,
    totals_permitted: frozenset[str],
) -> None:
    """Nothing if a sum over `new` may be added to those before.

    Each class then holds at least max(`minimum_difference`, 2) + `colluders` sites, or every site of it has permitted its own
    totals: in `totals_permitted` for the new sum, and in every earlier one that it is in. A site that dropped out is judged by
    what it signed when it was in. Raises `DifferencingRefused`.
    """
    sums = [*dict.fromkeys(history), Answered(new, totals_permitted & new)]
    least = max(minimum_difference, ALONE) + colluders
    unwilling = frozenset().union(*(s.sites - s.permitted for s in sums))
    for pattern, sites in classes([s.sites for s in sums]).items():
        if any(pattern) and len(sites) < least and sites & unwilling:
            raise DifferencingRefused(
                f"beside the sums answered before, this one would show the total of {len(sites)} of the sites, and at least "
                f"{least} must stand together",
                rule="class_rule",
                help="Wait until the sites of the earlier sums are back, or ask their custodians for site_totals: permitted.",
            )


class ClassRule:
    """All exact sums answered on one data asset: append-only, on disk before a sum is opened."""

    def __init__(self, path: Path, *, minimum_difference: int, colluders: int) -> None:
        self.path, self.minimum_difference, self.colluders = path, minimum_difference, colluders

    def history(self) -> Iterator[Answered]:
        for record in read(self.path):
            yield Answered(frozenset(record["sites"]), frozenset(record["permitted"]))

    def consider(self, new: frozenset[str], totals_permitted: frozenset[str]) -> None:
        """Raises `DifferencingRefused`; writes nothing."""
        self._check(list(self.history()), new, totals_permitted)

    def admit(self, new: frozenset[str], totals_permitted: frozenset[str], *, study: str, run: str, round: int) -> None:
        """`consider`, and the set is on disk when this returns: before the first unmask share leaves. Another run at the same
        site waits its turn, so that no two sums are judged without knowing of each other. Raises `StorageFull` too."""
        with self._alone():
            history = list(self.history())
            self._check(history, new, totals_permitted)
            fresh = Answered(new, totals_permitted & new)
            if fresh in history:
                return
            journal = Journal(self.path)
            try:
                where = {"study": study, "run": run, "round": round}
                journal.append({"sites": sorted(fresh.sites), "permitted": sorted(fresh.permitted)} | where)
            finally:
                journal.close()

    def _check(self, history: list[Answered], new: frozenset[str], totals_permitted: frozenset[str]) -> None:
        check(
            history,
            new,
            minimum_difference=self.minimum_difference,
            colluders=self.colluders,
            totals_permitted=totals_permitted,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
