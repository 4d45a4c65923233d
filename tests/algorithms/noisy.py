"""A driver of methods under differential privacy: every site's answer on its grid, with its share of noise.

Not a test module. The same as `plain.py`, with the noise of a run and without masks, policies or ledgers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fivefold.algorithms.method import Method, Setting
from fivefold.disclosure.rules import screen
from fivefold.privacy.dp.shares import noisy
from fivefold.privacy.fixed_point import pack, ring_for, unpack, width
from fivefold.privacy.secagg.ring import add_into, zeros
from fivefold.protocol.questions import Aggregate, Snapshot, read_only
from fivefold.protocol.results import Result
from fivefold.site.noising import noised
from fivefold.study.definition import Analysis, DifferentialPrivacy
from fivefold.study.table import Table


def private(setting: Setting, z: float = 1.0, unit: Any = "person", dropouts: int = 0) -> Setting:
    """The setting of a study with differential privacy."""
    return replace(setting, differential_privacy=DifferentialPrivacy(unit, 10.0, 1e-6, z, dropouts))


def run(method: Method, analysis: Analysis, setting: Setting, tables: Sequence[Table], seed: int = 0) -> Result:
    """The result over all tables; `seed` makes the sites' secrets."""
    assert setting.sharing is not None
    generator, sent, round = method.rounds(method.parse(analysis, setting)), None, 0
    while True:
        try:
            question = generator.send(sent)
        except StopIteration as done:
            result: Result = done.value
            return result
        if isinstance(question, Snapshot):
            sent = None
            continue
        round += 1
        (one,) = question if isinstance(question, tuple) else (question,)  # several sums never travel together with noise
        fields = noisy(one.fields, setting.sharing)
        total = zeros(width(fields), ring_for(fields))
        for table in tables:
            answer = one.step(table, **one.arguments)
            vector = pack({n: np.asarray(v) for n, v in answer.items()}, fields, len(setting.sites))
            key = hashlib.sha256(f"{seed} {round} {table.site}".encode()).digest()
            add_into(total, noised(vector, fields, key), ring_for(fields))
        totals = screen(unpack(total, fields, len(setting.sites), len(tables)), fields, setting.minimum_persons)
        sent = Aggregate({n: read_only(v) for n, v in totals.items()}, tuple(t.site for t in tables))
        sent = (sent,) if isinstance(question, tuple) else sent
