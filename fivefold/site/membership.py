"""What exact sums reveal over time: two sums over sets that differ by one site differ by that site's own total.

Over all exact sums answered on a data asset, in every run and study, the sites are sorted by their pattern of membership in
the survivor sets. Each class must hold at least `minimum_difference` + c sites, unless each of its sites has signed that its
totals may be seen. The sets lie on disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from fivefold.errors import Refused
from fivefold.records.journal import Journal, read


def classes(sets: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Sites by pattern of membership; sites that are in no set stand in none."""
    sets = list(dict.fromkeys(sets))
    patterns: dict[tuple[bool, ...], set[str]] = {}
    for site in sorted(frozenset().union(*sets)) if sets else ():
        patterns.setdefault(tuple(site in s for s in sets), set()).add(site)
    return [frozenset(sites) for sites in patterns.values()]


def check(before: Iterable[frozenset[str]], new: frozenset[str], *, least: int, permitted: Collection[str]) -> None:
    """Raises `Refused` where the new set, beside those before, would isolate fewer than `least` sites."""
    for group in classes([*before, new]):
        if len(group) < least and not group <= frozenset(permitted):
            raise Refused(
                "with the sums answered before, this one would show the total of too few sites",
                rule="class_rule",
                help="Wait until the sites that dropped out are back, or let them permit their totals in their approvals.",
            )


class Memberships:
    """The survivor sets of a data asset, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sets(self) -> list[frozenset[str]]:
        return [frozenset(record["survivors"]) for record in read(self.path)]

    def add(self, survivors: frozenset[str]) -> None:
        """Durable before the site helps to open the sum; a set that is known is not written twice."""
        if survivors in self.sets():
            return
        journal = Journal(self.path)
        try:
            journal.append({"survivors": sorted(survivors)})
        finally:
            journal.close()
