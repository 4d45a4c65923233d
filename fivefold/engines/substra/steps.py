"""A study's rounds as pure functions over bytes: what a task at a site does, and what the task that adds up does.

Substra's tasks are short and keep no secrets between them, so there is no secure sum here: the organisation that adds up sees
each site's own answer. A site therefore answers only where its policy and its approval permit its totals (`site_totals`), as
they would have to for DataSHIELD. All else is as everywhere: a task asks what `site/node.py` asks, through the same door
(`site/admission.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fivefold.errors import EngineUnfit, FivefoldError, NotApproved, PolicyRefuses
from fivefold.governance.approvals import Approval
from fivefold.governance.policy import Policy
from fivefold.governance.safe_settings import SURROUNDINGS
from fivefold.governance.withdrawals import refuse_withdrawn
from fivefold.plugins import method
from fivefold.privacy.fixed_point import ring_for, width
from fivefold.privacy.secagg.ring import add_into, from_bytes, to_bytes, zeros
from fivefold.protocol.encoding import decode, encode
from fivefold.records.audit import AuditLog
from fivefold.replay.buffered import buffers_of
from fivefold.replay.cursor import Cursor, Outcome, setting_of
from fivefold.replay.totals import outcome
from fivefold.site.admission import admitted, permitted
from fivefold.site.folder import SiteFolder, opened
from fivefold.site.gate import GATE, Departure, leave, own_steps
from fivefold.site.kept_state import computed
from fivefold.site.preparation import prepare
from fivefold.study.definition import Study
from fivefold.study.digest import load_signed

RUN = "substra"
"""A task knows nothing of the plan that it is in; the site's books keep all of a study's plans as one run."""


def replayed(study: Study, history: bytes) -> Cursor:
    """Where the study stands after the rounds of `history`; empty bytes are no rounds."""
    cursor = Cursor(study)
    for record in decode(history) if history else ():
        cursor.feed(Outcome(tuple(record["totals"]), tuple(record["sites"]), (), record["ended"]))
    return cursor


def carried(study: Study) -> None:
    """Nothing where tasks can carry the study. Raises `EngineUnfit` where they cannot keep what it promises or needs."""
    if study.privacy.differential_privacy is not None:
        raise EngineUnfit(
            "the study's noise protects the sum of all sites, and here each site's answer is seen with its own share alone",
            rule="differential_privacy",
        )
    if buffers_of(study, ()):
        raise EngineUnfit(
            "fedbuff is filled by whoever is done first, and a plan of tasks is fixed beforehand",
            rule="buffer",
            help="Train with the method fedavg.",
        )
    if any(method(a.method).gathers for a in study.analyses):
        raise EngineUnfit("an analysis gathers single replies, and a plan of tasks adds answers up", rule="gather")
    if any(a.sites for a in study.analyses):
        raise EngineUnfit("an analysis leaves sites out, and a plan of tasks asks all of them", rule="analysis_sites")
    for analysis in study.analyses:
        if any(step.keeps_state for step in method(analysis.method).steps):
            raise EngineUnfit(
                f"{analysis.method} keeps something at each site between rounds, and a task here keeps nothing",
                rule="keeps_state",
            )


def shown(policy: Policy, approval: Approval) -> None:
    """Nothing where this site's own totals may be seen. Raises `PolicyRefuses`, `NotApproved`."""
    if policy.site_totals != "permitted":
        raise PolicyRefuses("there is no secure sum here, and this site's totals may not be seen", rule="site_totals")
    if not approval.permits("site_totals"):
        raise NotApproved(
            "there is no secure sum here, and this site's approval does not permit its totals", rule="site_totals"
        )


def answer(signed: bytes, folder: Path, history: bytes, now: datetime) -> bytes:
    """One site's answer to the question that follows from `history`: CBOR of its name, the round and its ring vector.

    Once the study has no more questions the round is 0. Raises as the site's node does, `EngineUnfit` where the study cannot be
    carried, and `PolicyRefuses` or `NotApproved` where the site does not permit its own totals to be seen. A refusal is in the
    site's log like an answer.
    """
    site = opened(folder)
    with site.audit() as log:
        try:
            return _answer(signed, site, history, now, log)
        except FivefoldError as error:
            log.write("refused", engine="substra", **error.public())
            raise


def _answer(signed: bytes, site: SiteFolder, history: bytes, now: datetime, log: AuditLog) -> bytes:
    found = load_signed(signed)
    study = found.study
    policy, approval, roster, plan = admitted(site, found, site.node_key(), (), now, SURROUNDINGS["substra"])
    carried(study)
    shown(policy, approval)
    refuse_withdrawn(site.state, found.digest, roster, roster.names)
    cursor = replayed(study, history)
    if (asked := cursor.open) is None:
        return encode({"site": policy.site, "round": 0, "vector": b""})
    policy = permitted(site, study, found.digest, plan, asked, now)
    prepared = prepare(site, study, found.digest, when=now)
    departure = Departure(
        study,
        found.digest,
        policy,
        asked,
        prepared.table,
        {},
        site.state,
        cursor.persons,
        run=RUN,
        data=prepared.tags.data,
        secret=site.secret(),
        log=log,
    )
    noise = own_steps(departure)
    numbers, _ = computed(asked, [one.arguments for one in asked.sums], prepared.table, lambda _: None, noise)
    passed = leave(replace(departure, answer=numbers, finished=noise is not None and noise.finished), GATE)
    assert passed.vector is not None
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
    names = tuple(s.name for s in study.sites)
    sites = tuple(n for n in names if n in heard)
    for name in sites:
        add_into(total, from_bytes(heard[name]["vector"], size, ring), ring)
    found = outcome(asked, total, names, sites, study.privacy.minimum_persons)
    return encode((*(decode(history) if history else ()), _plain(found)))


def rounds_of(study: Study) -> int:
    """An upper bound on the study's rounds: a compute plan is drawn before anything is known."""
    setting = setting_of(study)
    return sum(method(a.method).cost(method(a.method).parse(a, setting)).rounds for a in study.analyses)


def _plain(outcome: Outcome) -> Mapping[str, Any]:
    record = asdict(outcome)
    return {"totals": tuple(dict(t) for t in outcome.totals), "sites": record["sites"], "ended": record["ended"]}
