"""What a site says of a model that it attacked: pass or concern, by rule, signed by its node. No figure is in it.

A concern is a failed check: a checker lets such a model go only as an exception, with a written reason. Flags of the model's
form alone are no concern, since nearly every model has one; they are shown for review.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fivefold.disclosure.report import Finding
from fivefold.errors import StatementInvalid
from fivefold.governance.statements import read_statement, signed, store
from fivefold.protocol.messages import Roster
from fivefold.protocol.results import Result

KIND = "attack_verdict"
Said = Literal["pass", "concern", "untested"]
MEMBERSHIP, NO_HOLDOUT, TOO_FEW = "membership-inference", "no-holdout", "too-few"
FLAGS = ("k-anonymity", "class-disclosure", "smallest-class")
RULES = (MEMBERSHIP, NO_HOLDOUT, TOO_FEW, *FLAGS)
MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Verdict:
    """`model` is the SHA-256 of the weights that were attacked; `rules` name what was found, or why nothing could be tried."""

    site: str
    study: str
    analysis: str
    model: str
    said: Said
    rules: tuple[str, ...]
    at: str


def make(verdict: Verdict, node: bytes) -> bytes:
    """The verdict as a statement, signed by the site's node key."""
    facts = {
        "site": verdict.site, "study": verdict.study, "analysis": verdict.analysis, "model": verdict.model,
        "verdict": verdict.said, "rules": list(verdict.rules), "at": verdict.at,
    }  # fmt: skip
    return signed(KIND, facts, node)


def read_verdict(raw: bytes, study: str, roster: Roster) -> Verdict:
    """A verdict about a model of a study (digest, hex), verified against the keys that the study gives its sites. Raises
    `StatementInvalid` where it is altered, of another study, or not signed by that site's node."""
    statement = read_statement(raw, "the verdict")
    try:
        f = statement.facts
        found = Verdict(
            str(f["site"]), str(f["study"]), str(f["analysis"]), str(f["model"]), f["verdict"], tuple(f["rules"]), str(f["at"])
        )
    except (KeyError, TypeError) as error:
        raise StatementInvalid("the verdict on a model is not whole") from error
    if statement.kind != KIND or found.study != study:
        raise StatementInvalid("the verdict is about another study", rule="verdict")
    if found.said not in get_args(Said) or not set(found.rules) <= set(RULES):
        raise StatementInvalid("the verdict says what no verdict says", rule="verdict")
    if found.site not in roster or roster.key(found.site).hex() not in statement.signers:
        raise StatementInvalid(f"the verdict of {found.site} is not signed by that site's node", rule="verdict")
    return found


def keep(folder: Path, raw: bytes, study: str, roster: Roster) -> Verdict:
    """Verify a verdict and keep it, the newest of each site on each model. Durable when it returns."""
    found = read_verdict(raw, study, roster)
    store(folder / f"{found.model[:32]}.{found.site}.json", raw, mode=0o644)
    return found


def kept(folder: Path, study: str, roster: Roster) -> tuple[Verdict, ...]:
    """All verdicts of a folder, each verified."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with path.open("rb") as file:
            found.append(read_verdict(file.read(MOST_BYTES + 1), study, roster))
    return tuple(found)


def findings(whole: Result, sites: int, analysis: str, verdicts: Sequence[Verdict]) -> Iterator[Finding]:
    """What the sites found that attacked a trained model. Only how many sites found it is told."""
    own = [v for v in verdicts if v.analysis == analysis and v.model == whole.facts.get("weights_sha256")]
    said = {word: sum(v.said == word for v in own) for word in get_args(Said)}
    if said["concern"]:
        words = f"{MEMBERSHIP}: {said['concern']} of {sites} sites could tell who was trained on"
        yield Finding(MEMBERSHIP, "fail", words, "weights")
    elif len(own) < sites:
        words = f"{MEMBERSHIP}: {len(own)} of {sites} sites have attacked this model"
        yield Finding(MEMBERSHIP, "review", words, "weights")
    elif said["untested"]:
        words = f"{MEMBERSHIP}: {said['untested']} of {sites} sites had too few persons held out to try"
        yield Finding(MEMBERSHIP, "review", words, "weights")
    else:
        yield Finding(MEMBERSHIP, "pass", f"{MEMBERSHIP}: no site could tell who was trained on", "weights")
    for rule in FLAGS:
        many_sites = sum(rule in v.rules for v in own)
        if many_sites:
            yield Finding(rule, "review", f"{rule}: at {many_sites} of {sites} sites; most models have it", "weights")
