"""On how many a result rests, in one line: what every table, figure and page of a result states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "missing_"
COUNTS = ("persons", "events", "rows", "sites")
SHOWN = 4
PRIVACY = "privacy"
"""The fact that holds a noisy result's (ε, δ), unit and neighbour relation."""


def is_count(name: str) -> bool:
    """Whether a fact is told by `counts_line`."""
    return name in (*COUNTS, PRIVACY) or name.startswith(MISSING)


def counts_line(facts: Mapping[str, Any], sites: Sequence[str], dropped: Sequence[str], *, named: bool = False) -> str:
    """Persons, events, missing values by variable, sites, the sites that dropped, and what the answers cost in privacy.
    Rows are told where persons have several.

    `facts` are a result's: `persons`, `events`, `rows`, `missing_VARIABLE`. `named` lists the sites instead of counting them.
    """
    parts = [f"{name} {whole(facts[name])}" for name in ("persons", "events") if facts.get(name) is not None]
    if facts.get("rows") not in (None, facts.get("persons")):
        parts.append(f"rows {whole(facts['rows'])}")
    missing = {name.removeprefix(MISSING): n for name, n in facts.items() if name.startswith(MISSING) and n is not None}
    if missing:
        some = [f"{name} {whole(n)}" for name, n in missing.items() if n]
        more = [f"{len(some) - SHOWN} more"] if len(some) > SHOWN else []
        parts.append(f"missing {', '.join(some[:SHOWN] + more)}" if some else "none missing")
    parts.append(f"sites {', '.join(sites)}" if named else f"sites {len(sites)}")
    parts.append(f"dropped {', '.join(dropped)}" if dropped else "none dropped")
    if facts.get(PRIVACY):
        parts.append(str(facts[PRIVACY]))
    return " · ".join(parts)


def whole(value: Any) -> str:
    """A count with thin thousands; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) and not isinstance(value, bool) else str(value)
