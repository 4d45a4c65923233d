"""From a site's counter-proposal to a new version of the study: signed and proposed by the lead, approved by each site."""

from __future__ import annotations

from dataclasses import dataclass

from fivefold.errors import StudyInvalid
from fivefold.governance.answers import Counter
from fivefold.governance.proposals import Proposal, propose
from fivefold.study import versions
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy, load_signed, sign_study


@dataclass(frozen=True)
class Version:
    """A new version: the signed study, and the lead's proposal (bytes) that names the one before and the counter-proposal."""

    signed: SignedStudy
    proposal: bytes


def accepted(study: Study, said: Counter) -> Study:
    """The study as a counter-proposal would have it, for all sites. Raises `StudyInvalid` for what the lead has to write."""
    wanted, made = said.wanted, study
    if wanted.without_analyses:
        made = versions.without_analyses(made, wanted.without_analyses)
    if wanted.without_variables:
        made = versions.without_variables(made, wanted.without_variables)
    if wanted.noise is not None:
        made = versions.with_noise(made, wanted.noise)
    if wanted.rounds is not None:
        made = versions.with_rounds(made, wanted.rounds)
    if made == study:
        raise StudyInvalid("the study is so already", help="Nothing needs to be done.")
    return made


def kept_out(study: Study, said: Counter) -> Study:
    """The study in which the site takes no part in what it does not want, and all else stays. Raises `StudyInvalid` for noise
    and rounds: half of a sum cannot have more of either."""
    if said.wanted.noise is not None or said.wanted.rounds is not None:
        raise StudyInvalid(
            "noise and rounds are the same for all sites of a sum", help="Accept them for all: leave --keep-out away."
        )
    return versions.kept_out(study, said.site, said.wanted.without_analyses, said.wanted.without_variables)


def next_version(
    found: SignedStudy, made: Study, said: Counter, before: Proposal | None, private: bytes, *, why: str = ""
) -> Version:
    """Sign and propose a new version, by the lead's private key. It is checked as strictly as a file is.

    Raises `KeyProblem`, `StudyInvalid` (what is left is no study), `FormulaInvalid`.
    """
    signed = load_signed(sign_study(made, private).to_bytes())
    first = before or _first(found)
    reason = why.strip() or f"{said.site} asks: {'; '.join(said.wanted.words())} ({said.why})"
    return Version(signed, propose(signed, private, why=reason, before=first, answers=(said.identity,)))


def _first(found: SignedStudy) -> Proposal:
    """Version 1 of a study that was signed before proposals were kept."""
    lead = found.study.lead
    return Proposal(found.digest, "", "", 1, "", (), lead.name, lead.public_key, "", "", "")
