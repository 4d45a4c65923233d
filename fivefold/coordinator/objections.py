"""Asking all sites of a study what they say of a release: how many object, and by which rule; never which. And telling them of
the release, before anybody else has it, and of its recall.

Nothing of it is kept at the coordinator but the checker's signed statement, which holds a salted digest and no number.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from pathlib import Path

from fivefold.auth.keys import public_of
from fivefold.auth.signatures import opened
from fivefold.coordinator.airlock import Airlock, Held
from fivefold.coordinator.rounds import Engine
from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.errors import FivefoldError, OutputHeld, StatementInvalid, TooManyDropouts
from fivefold.governance.output_checks import Proposal
from fivefold.governance.safe_outputs import REQUEST
from fivefold.governance.statements import read_chain, read_statement, signed, store
from fivefold.privacy.fixed_point import ring_for, unpack, width
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Envelope, Message, Opened, Place
from fivefold.protocol.objections import (
    FIELDS,
    REMARKS,
    RULES,
    STATEMENT,
    Considered,
    Enter,
    Entered,
    Objections,
    Propose,
    Recalled,
    question_of,
)  # fmt: skip
from fivefold.replay.roster import roster_of
from fivefold.study.consistency import thresholds
from fivefold.study.digest import SignedStudy


def proposed(it: Airlock, held: Held, number: int, form: str, made: Proposal, private: bytes) -> Propose:
    """What the sites are shown of request `number`, under an output checker's signature: this key's, or the one that was given
    for the very same counts before. Raises `StatementInvalid` where the request is gone."""
    asked = next((s for s in read_chain(it.chain) if s.kind == REQUEST and int(s.facts["request"]) == number), None)
    if asked is None:
        raise StatementInvalid(f"request {number} is not in the airlock's chain")
    request = (it.chain / f"{asked.facts['number']:04d}-{REQUEST}.json").read_bytes()
    salt = hmac.new(held.secret, b"salt of a proposal", hashlib.sha256).digest()
    counts = encode({"salt": salt, "counts": {n: [c.plain() for c in some] for n, some in made.told.items()}})
    models = encode(dict(made.models))
    facts = {
        "study": it.study.digest,
        "run": it.run,
        "request": asked.digest,
        "form": form,
        "counts": hashlib.sha256(counts).hexdigest(),
        "models": hashlib.sha256(models).hexdigest(),
    }
    kept = it.chain / "asked" / f"{number:03d}-{form}.json"
    statement = kept.read_bytes() if kept.exists() else b""
    if not statement or dict(read_statement(statement, kept.name).facts) != facts:
        statement = signed(STATEMENT, facts, private)
        if public_of(private).hex() not in it.operators():
            store(kept, statement)
    signer = read_statement(statement, kept.name).signers[0]
    return Propose(it.study.to_bytes(), request, statement, counts, _appointed(it.folder, signer), models)


def ask(engine: Engine, found: SignedStudy, proposal: Propose) -> Objections:
    """Show all sites the proposal and open the sum of what they say; one that is lost on the way leaves no sum."""
    roster, run = roster_of(found.study), secrets.token_hex(16)
    lost = _told(engine, found, run, proposal, Considered)

    def refused(site: str, code: str, rule: str) -> None:
        lost.setdefault(site, rule or code)

    sums = SecureRounds(
        roster,
        thresholds(found.study),
        found.digest,
        run,
        engine.exchange,
        refused=refused,
    )
    question, n = question_of(read_statement(proposal.proposal, "proposal").digest), len(roster.names)
    try:
        if lost:
            return Objections(n, missing=Counter(lost.values()))
        total = sums.sum(
            1,
            hashlib.sha256(question).digest(),
            ring_for(FIELDS),
            width(FIELDS),
            lambda site: m.Task(question, ()).encode(),
            before_unmask=lambda record: None,
            more=False,
        )
    except TooManyDropouts:
        return Objections(n, missing=Counter(lost.values()) or {"no answer": 1})
    finally:
        sums.close(1)
    objecting, *said = (int(v) for v in unpack(total.vector, FIELDS, n)[FIELDS[0].name])
    by_name = dict(zip((*RULES, *REMARKS), said, strict=True))
    return Objections(n, objecting, {r: by_name[r] for r in RULES}, {r: by_name[r] for r in REMARKS})


def enter(engine: Engine, found: SignedStudy, proposal: Propose) -> None:
    """Have every site enter a release in its own ledger. Raises `OutputHeld` where one has not."""
    entry = Enter(proposal.study, proposal.request, proposal.proposal, proposal.counts, proposal.appointed)
    lost = _told(engine, found, secrets.token_hex(16), entry, Entered)
    if lost:
        who = ", ".join(f"{site} ({why})" for site, why in lost.items())
        raise OutputHeld(
            f"these sites have not entered the release in their ledgers: {who}",
            help="Nothing was released. Release again when they answer; who has entered it does so once.",
        )


def recalled(engine: Engine, found: SignedStudy, notice: bytes) -> list[str]:
    """Tell the sites that a release was recalled; the names of those that have it in their ledgers."""
    lost = _told(engine, found, secrets.token_hex(16), Recalled(found.to_bytes(), notice), Entered)
    return [name for name in roster_of(found.study).names if name not in lost]


def _told(engine: Engine, found: SignedStudy, run: str, said: Message, answer: type[Message]) -> dict[str, str]:
    """One trip to all sites of a study: the sites that did not answer as they should, and why."""
    roster, place = roster_of(found.study), Place(found.digest, run, 1, 1)
    lost = dict.fromkeys(roster.names, "no answer")
    for site, reply in engine.exchange(dict.fromkeys(roster.names, m.request(place, said))):
        try:
            first = m.envelopes_of(reply)[0]
            if Envelope.decode(first).kind == m.Refusal.kind:
                refusal = opened(first, m.Refusal, roster, place, site)[1]
                lost[site] = refusal.rule or refusal.code
            else:
                opened(first, answer, roster, place, site)
                del lost[site]
        except FivefoldError as error:
            lost[site] = error.rule or error.code
    return lost


def _appointed(folder: Path, signer: str) -> bytes:
    """The signed reply of the site that named this checker; empty where the study does."""
    for path in sorted((folder / "enrolled").glob("*.message")):
        data = path.read_bytes()
        said = Opened.decode(Envelope.decode(data).body)
        if any(c["key"] == signer for c in decode(said.checkers)):
            return data
    return b""
