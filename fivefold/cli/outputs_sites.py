"""Asking the sites on this machine what they say of a release, and telling them of it. Only how many object is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fivefold.coordinator.airlock import Airlock, Held
    from fivefold.governance.output_forms import Form
    from fivefold.site.folder import SiteFolder
    from fivefold.site.release_ledger import Proposed


def place(run: Path, sites: Path | None) -> Path | None:
    """Where the site folders are: as named, or beside the study whose run this is; None where there are none."""
    beside = run.resolve().parent.parent / "sites"
    return sites or (beside if beside.is_dir() else None)


def objecting(it: Airlock, held: Held, number: int, form: Form, beside: Sequence[Path], sites: Path | None) -> int | None:
    """How many sites object to what a request would release, by a secure sum over all of them; None where none can be asked.
    Where a site is silent there is no sum: it counts as objecting, and nothing is known of the others."""
    import secrets

    from fivefold.errors import FivefoldError
    from fivefold.governance.objection_sum import total
    from fivefold.replay.roster import roster_of
    from fivefold.site.folder import opened
    from fivefold.site.objection_sum import asking_of, objection, objection_key

    where = place(it.folder, sites)
    if where is None:
        return None
    proposed, nonce = _proposed(it, held, number, form, beside), secrets.token_hex(16)
    asking, roster = asking_of(it.study, proposed, nonce), roster_of(it.study.study)
    keys, said = dict[str, bytes](), dict[str, bytes]()
    for site in it.study.study.sites:
        with suppress(FivefoldError):
            keys[site.name] = objection_key(opened(where / site.name), asking)
    if len(keys) < len(roster.names):
        return len(roster.names) - len(keys)
    for site in it.study.study.sites:
        with suppress(FivefoldError):
            said[site.name] = objection(opened(where / site.name), it.study, proposed, nonce, keys)
    if len(said) < len(roster.names):
        return len(roster.names) - len(said)
    return total(asking, keys, said, roster)


def tell(it: Airlock, held: Held, number: int, form: Form, beside: Sequence[Path], sites: Path | None) -> None:
    """Enter a release in each site's own ledger."""
    from fivefold.site.release_ledger import record

    where = place(it.folder, sites)
    if where is None:
        return
    proposed = _proposed(it, held, number, form, beside)
    for site in _sites(it, where):
        record(site, it.study, proposed, release=f"{it.run}/{number}")


def tell_recall(it: Airlock, notice: bytes, sites: Path | None) -> list[str]:
    """Enter a recall at each site whose folder is here; the names of those that have it."""
    from fivefold.site.release_ledger import recall

    where = place(it.folder, sites)
    if where is None:
        return []
    for site in _sites(it, where):
        recall(site, it.study, notice)
    return [s.name for s in it.study.study.sites]


def attacked(it: Airlock, model: bytes, sites: Path | None) -> list[str]:
    """What each site on this machine says of a model, kept in the run's folder; a site that refuses says nothing."""
    from fivefold.coordinator.airlock import take_verdict
    from fivefold.errors import FivefoldError
    from fivefold.site.attack import attack

    where, said = place(it.folder, sites), list[str]()
    for site in _sites(it, where) if where is not None else ():
        try:
            done = attack(site, it.study, model)
        except FivefoldError:
            continue
        said.append(take_verdict(it, done.raw).said)
    return said


def _proposed(it: Airlock, held: Held, number: int, form: Form, beside: Sequence[Path]) -> Proposed:
    from fivefold.coordinator.airlock import population, proposal
    from fivefold.site.memorisation import model_of
    from fivefold.site.release_ledger import Proposed

    made, _ = proposal(it, held, number, form, beside=beside)
    found = {name: model_of(result) for name, result in made.results.items()}
    return Proposed(made.told, population(it.study), {name: model for name, model in found.items() if model is not None})


def _sites(it: Airlock, where: Path) -> Iterator[SiteFolder]:
    from fivefold.site.folder import opened

    return (opened(where / s.name) for s in it.study.study.sites)
