"""A site's withdrawal, as the others hear of it: a notice signed by its node and its custodian.

The node's key stands in the signed study, so every party can verify the notice. A peer that has seen it serves no survivor list
with that site in it, whoever asks. The coordinator passes it on; a custodian can also send it by any other way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fivefold.errors import NotApproved, StatementInvalid
from fivefold.governance.statements import read_statement, signed, store
from fivefold.protocol.messages import Roster

KIND = "withdrawal_notice"
Wish = Literal["keep", "retrain", "destroy"]
"""What is to become of something that a withdrawal cannot undo: it is kept, made again without the site, or destroyed."""
WISHES: tuple[Wish, ...] = get_args(Wish)


@dataclass(frozen=True)
class Withdrawal:
    """Who withdrew, when, why, and what is wished for what is out already: thing → wish. `statement` is the digest of the
    custodian's statement at the site."""

    study: str
    site: str
    custodian: str
    reason: str
    at: str
    statement: str
    wishes: dict[str, str]
    raw: bytes


def make_notice(facts: dict[str, Any], node: bytes, custodian: bytes) -> bytes:
    """The notice of a withdrawal, signed by the node's private key and the custodian's."""
    return signed(KIND, facts, node, custodian)


def read_notice(raw: bytes, study: str, roster: Roster, site: str = "") -> Withdrawal:
    """A notice about a study (digest, hex), verified against the keys that the study gives its sites. `site`: whose it must be.

    Raises `StatementInvalid` where it is altered, of another study or site, or not signed by that site's node.
    """
    said = read_statement(raw, "the notice")
    try:
        found = Withdrawal(
            str(said.facts["study"]),
            str(said.facts["site"]),
            str(said.facts["custodian"]),
            str(said.facts["reason"]),
            str(said.facts["at"]),
            str(said.facts["statement"]),
            {str(k): str(v) for k, v in said.facts["wishes"].items()},
            raw,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StatementInvalid("the notice of a withdrawal is not whole") from error
    if said.kind != KIND or found.study != study or site not in ("", found.site):
        raise StatementInvalid("the notice is about another study or site", rule="notice")
    if found.site not in roster or roster.key(found.site).hex() not in said.signers:
        raise StatementInvalid(f"the notice about {found.site} is not signed by that site's node", rule="notice")
    return found


def told(reason: str, wishes: Mapping[str, str]) -> str:
    """Why a site withdrew, and what it wishes for what is out, in one line."""
    return "; ".join((*((reason,) if reason else ()), *(f"{thing}: {wish}" for thing, wish in sorted(wishes.items()))))


def keep_notice(state: Path, said: Withdrawal) -> None:
    """Keep a verified notice in a site's state folder. Durable when it returns."""
    store(_folder(state, said.study) / f"{said.site}.json", said.raw)


def own_notice(state: Path, study: str, site: str) -> bytes:
    """This site's own notice about a study; empty where there is none."""
    if not re.fullmatch("[0-9a-f]{64}", study):
        return b""
    path = _folder(state, study) / f"{site}.json"
    return path.read_bytes() if path.is_file() else b""


def drop_notice(state: Path, study: str, site: str) -> None:
    """A site that approves again takes its own notice back; those of others are never dropped."""
    (_folder(state, study) / f"{site}.json").unlink(missing_ok=True)


def refuse_withdrawn(state: Path, study: str, roster: Roster, survivors: Iterable[str]) -> None:
    """Nothing if none of the survivors has withdrawn, as far as this site has seen. Raises `NotApproved`, rule
    `peer_withdrew`."""
    folder = _folder(state, study)
    for name in survivors:
        path = folder / f"{name}.json"
        if path.is_file():
            read_notice(path.read_bytes(), study, roster, name)  # an altered one stops as well
            raise NotApproved(
                f"{name} withdrew from this study, and no sum with it in is opened any more",
                rule="peer_withdrew",
                help="The run goes on without that site where the others may show the difference, and ends otherwise.",
            )


def _folder(state: Path, study: str) -> Path:
    return state / "notices" / study
