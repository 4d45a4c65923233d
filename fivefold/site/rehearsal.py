"""Rehearse a study on this site's real rows: nothing is sent, and every number that would have left is shown.

The site plays the whole study alone: its own answer stands for the sum, so later questions are those that its rows alone would
lead to. The gate's checks are asked as they would be; a refusal is shown and ends the analysis.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fivefold.disclosure.rules import screen
from fivefold.errors import FivefoldError, TooFewPersons
from fivefold.governance.policy import decide
from fivefold.privacy.dp.discrete_gaussian import KEY
from fivefold.protocol.questions import Array
from fivefold.replay.cursor import Asked, Cursor, Outcome
from fivefold.site.folder import SiteFolder
from fivefold.site.gate import Departure, own_steps, seen
from fivefold.site.kept_state import State, computed
from fivefold.site.preparation import inspect
from fivefold.study.definition import Study
from fivefold.study.table import Table


@dataclass(frozen=True)
class Rehearsed:
    """One round: what was asked, the numbers that would leave (by field, before the mask), or why the site would refuse."""

    asked: Asked
    numbers: Mapping[str, Array]
    refusal: FivefoldError | None = None


def rehearse(site: SiteFolder, study: Study, study_digest: str, table: Table | None = None) -> Iterator[Rehearsed]:
    """Every round of every analysis over this site's own rows, or over `table`. Raises `DataError` where the rows cannot be
    read."""
    policy = site.policy()
    table = inspect(site, study).table if table is None else table
    me = policy.site
    secret = secrets.token_bytes(KEY)  # of this rehearsal alone: it tells nothing of the noise of a run
    cursor, kept = Cursor(study), dict[str, State]()
    from datetime import UTC, datetime

    today = datetime.now(UTC).date()
    while cursor.open is not None:
        asked = cursor.open
        try:
            decide(policy, study, analysis=asked.analysis, question=asked.question, round=asked.round, today=today).enforce()
            departure = Departure(study, study_digest, policy, asked, table, {}, site.state, secret=secret)
            answer, states = computed(asked, [one.arguments for one in asked.sums], table, kept.get, own_steps(departure))
            numbers = seen(replace(departure, answer=answer))
        except FivefoldError as error:
            yield Rehearsed(asked, {}, error)
            cursor.feed(Outcome((), (me,), (), "refused"))
            continue
        kept |= states
        yield Rehearsed(asked, numbers)
        try:
            totals = screen(numbers, asked.fields, study.privacy.minimum_persons)
            cursor.feed(Outcome(asked.split({n: np.asarray(v) for n, v in totals.items()}), (me,)))
        except TooFewPersons:
            cursor.feed(Outcome((), (me,), (), "TooFewPersons"))
