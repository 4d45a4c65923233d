"""A study's rounds as pure functions over bytes: what a task at a site does, and what the task that adds up does.

Substra's tasks are short and keep no secrets between them, so there is no secure sum here: the organisation that adds up sees
each site's own answer. A site therefore answers only where its policy and its approval permit its totals (`site_totals`), as
they would have to for DataSHIELD. All else is as everywhere: signed study, approval, replayed question, policy, gate, audit
entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from fivefold.disclosure.rules import screen
from fivefold.errors import NotApproved, PolicyRefuses, TooFewPersons
from fivefold.governance.policy import decide
from fivefold.privacy.fixed_point import ring_for, unpack, width
from fivefold.privacy.secagg.ring import add_into, from_bytes, to_bytes, zeros
from fivefold.protocol.encoding import decode, encode
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.site.folder import opened
from fivefold.site.gate import GATE, Departure, leave
from fivefold.site.preparation import prepare
from fivefold.study.definition import Study
from fivefold.study.digest import load_signed


def replayed(study: Study, history: bytes) -> Cursor:
    """Where the study stands after the rounds of `history`; empty bytes are no rounds."""
    cursor = Cursor(study)
    for record in decode(history) if history else ():
        cursor.feed(Outcome(tuple(record["totals"]), tuple(record["sites"]), (), record["ended"]))
    return cursor


def answer(signed: bytes, folder: Path, history: bytes, now: datetime) -> bytes:
    """One site's answer to the question that follows from `history`: CBOR of its name, the round and its ring vector.

    Once the study has no more questions the round is 0. Raises as the site's node does, and `PolicyRefuses` or `NotApproved`
    where the site does not permit its own totals to be seen.
    """
    found, site = load_signed(signed), opened(folder)
    policy = site.policy(now)
    approval = site.approval(found.digest, now, study=found.study)
    decide(policy, found.study, today=now.date()).enforce()
    if policy.site_totals != "permitted":
        raise PolicyRefuses("there is no secure sum here, and this site's totals may not be seen", rule="site_totals")
    if not approval.permits("site_totals"):
        raise NotApproved(
            "there is no secure sum here, and this site's approval does not permit its totals", rule="site_totals"
        )
    cursor = replayed(found.study, history)
    if (asked := cursor.open) is None:
        return encode({"site": policy.site, "round": 0, "vector": b""})
    approval.allow(asked.analysis.name, asked.question)
    decide(policy, found.study, analysis=asked.analysis, question=asked.question, round=asked.round, today=now.date()).enforce()
    table = prepare(site, found.study, found.digest, when=now).table
    answers = asked.join([one.step(table, **one.arguments) for one in asked.sums])
    passed = leave(Departure(found.study, found.digest, policy, asked, table, answers, site.state), GATE)
    assert passed.vector is not None
    with site.audit() as log:
        log.write("answer", engine="substra", study=found.digest, round=asked.round, analysis=asked.analysis.name)
    return encode({"site": policy.site, "round": asked.round, "vector": to_bytes(passed.vector, ring_for(asked.fields))})


def add(signed: bytes, answers: Sequence[bytes], history: bytes) -> bytes:
    """The history with one more round: the sum of all sites' answers, small totals hidden. Unchanged once the study is done."""
    study = load_signed(signed).study
    cursor = replayed(study, history)
    if (asked := cursor.open) is None:
        return history
    ring, size = ring_for(asked.fields), width(asked.fields)
    total, heard = zeros(size, ring), {str(a["site"]): a for a in map(decode, answers)}
    sites = tuple(s.name for s in study.sites if s.name in heard)
    for name in sites:
        add_into(total, from_bytes(heard[name]["vector"], size, ring), ring)
    try:
        totals = screen(unpack(total, asked.fields, len(study.sites), len(sites)), asked.fields, study.privacy.minimum_persons)
        outcome = Outcome(asked.split(totals), sites)
    except TooFewPersons as error:
        outcome = Outcome((), sites, (), error.code)
    return encode((*(decode(history) if history else ()), _plain(outcome)))


def rounds_of(study: Study) -> int:
    """An upper bound on the study's rounds: a compute plan is drawn before anything is known."""
    from fivefold.plugins import method
    from fivefold.replay.cursor import setting_of

    setting = setting_of(study)
    return sum(method(a.method).cost(method(a.method).parse(a, setting)).rounds for a in study.analyses)


def _plain(outcome: Outcome) -> Mapping[str, Any]:
    record = asdict(outcome)
    return {"totals": tuple(dict(t) for t in outcome.totals), "sites": record["sites"], "ended": record["ended"]}
