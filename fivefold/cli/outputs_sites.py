"""Reaching the sites of a release, on this machine or over the coordinator's SuperLink, and asking what they say of it. Only
how many object, and by which rule, comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fivefold.coordinator.airlock import Airlock, Held
    from fivefold.coordinator.rounds import Engine
    from fivefold.governance.output_forms import Form
    from fivefold.protocol.objections import Objections, Propose


@contextmanager
def reached(it: Airlock, sites: Path | None, coordinator: Path | None) -> Iterator[Engine | None]:
    """What carries messages to the sites: the SuperLink of a coordinator's folder, else site folders, as named or beside the
    study whose run this is; None where there are none."""
    study = it.study.study
    beside = it.folder.resolve().parent.parent / "sites"
    where = sites or (beside if beside.is_dir() else None)
    if coordinator is not None:
        from fivefold.engines.flower.grid import flower_engine

        keys = {s.name: bytes.fromhex(s.public_key) for s in study.sites}
        with closing(flower_engine(coordinator, keys)) as link:
            yield link
    elif where is not None:
        from fivefold.engines.local import local_engine

        with closing(local_engine(where, tuple(s.name for s in study.sites))) as folders:
            yield folders
    else:
        yield None


def shown(it: Airlock, held: Held, number: int, form: Form, private: bytes, beside: Sequence[Path]) -> Propose:
    """What the sites are shown of a request; `private` signs it, if no checker has signed it yet."""
    from fivefold.coordinator import objections
    from fivefold.coordinator.airlock import proposal

    made, _ = proposal(it, held, number, form, beside=beside)
    return objections.proposed(it, held, number, form, made, private)


def objecting(engine: Engine | None, it: Airlock, proposal: Propose) -> Objections | None:
    """What the sites say, in one secure sum over all of them; None where they cannot be reached from here."""
    from fivefold.coordinator import objections

    return None if engine is None else objections.ask(engine, it.study, proposal)
