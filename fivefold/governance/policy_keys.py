"""What may stand under the keys of `site.yaml`: custodians, peers, the budget, and the site's conditions on each Safe.

The border's models; `governance/policy.py` puts them together, and `governance/safe_*.py` judge by them.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from fivefold.auth.keys import fingerprint

Choice = Literal["permitted", "refused"]


def _words(text: str) -> str:
    """Names are shown in terminals and logs: no control characters there."""
    if not text.isprintable():
        raise ValueError("write printable characters only")
    return text


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_words)]


def _key(text: str) -> str:
    key = text.strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise ValueError("a public key is written as 64 hex digits; `fivefold keys show FILE` prints it")
    return key


def _print(text: str) -> str:
    digits = re.sub("[ :-]", "", text).lower()
    if re.fullmatch("[0-9a-f]{64}", digits):
        return fingerprint(bytes.fromhex(digits))
    if not re.fullmatch("[0-9a-f]{32}", digits):
        raise ValueError("a fingerprint is eight groups of four hex digits; the other site reads it out to you")
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


Key = Annotated[str, AfterValidator(_key)]
Fingerprint = Annotated[str, AfterValidator(_print)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Custodian(Frozen):
    """A person who answers for the rows. `key` is the public half (Ed25519, 64 hex digits) of the custodian's own key."""

    name: Name
    key: Key
    since: date = Field(alias="from")
    until: date

    def holds(self, day: date) -> bool:
        return self.since <= day <= self.until


class Peer(Frozen):
    """A site that this site recognises: only such a one counts toward any minimum.

    `fingerprint` of the key of its node was compared out of band, by telephone say; a whole public key is taken as well.
    """

    site: Name
    fingerprint: Fingerprint


class Budget(Frozen):
    """The cap of the data asset's privacy budget: all noisy answers of all studies together stay (`epsilon`, `delta`)-private.

    `ledger`: the ledger's file, where nodes on one machine share an asset (relative to the site's folder); left out, it lies in
    state/budget.
    """

    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    ledger: Name | None = None


Role = Literal["lead", "custodian", "reviewer", "checker", "auditor", "operator"]
ROLES: tuple[Role, ...] = ("lead", "custodian", "reviewer", "checker", "auditor", "operator")
Percent = Annotated[float, Field(ge=0, le=100)]
Digest = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, pattern="^[0-9a-fA-F]{64}$")]


class Training(Frozen):
    """A course that everybody with one of these roles must have taken, and whose validity must not have ended."""

    course: Name
    roles: tuple[Role, ...] = Field(min_length=1)


class People(Frozen):
    """Safe people. Whoever takes part in one of these roles must stand in the site's register of people, with the training and
    the terms of use that the role needs."""

    required: tuple[Role, ...] = Field(("lead", "checker"), description="Roles whose holders must stand in the register.")
    training: tuple[Training, ...] = Field((), description="Courses, each with the roles that need it.")
    terms: Name | None = Field(None, description="The version of the terms of use that each of them must have accepted.")

    @model_validator(mode="after")
    def _judged(self) -> Self:
        idle = {role for t in self.training for role in t.roles} - set(self.required)
        if idle:
            raise ValueError(f"training is asked of {min(idle)}, which `required` does not name")
        return self


class Projects(Frozen):
    """Safe projects. So many `reviewers`, from so many `organisations`, must have signed a review before an approval counts."""

    reviewers: int = Field(0, ge=0, description="Signed reviews that an approval needs; nobody reviews their own study.")
    organisations: int = Field(0, ge=0, description="Organisations that the reviewers must come from.")
    public_benefit: bool = Field(False, description="true: a study has to state its benefit to the public.")
    data_sharing: Name | None = Field(
        None, description="The file of the data-sharing agreement at this site; the study must name its digest."
    )
    max_days: int | None = Field(None, ge=1, description="A study that would run longer than this is not admitted.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.organisations > self.reviewers:
            raise ValueError(f"{self.reviewers} reviewers cannot come from {self.organisations} organisations")
        return self


class Settings(Frozen):
    """Safe settings: what may carry the questions to the rows, and which code may read them."""

    engines: tuple[Name, ...] = Field((), description="Engines that may carry a study here (local, flower, flare); none: any.")
    releases: tuple[Name, ...] = Field((), description="Fivefold releases that may read rows here; none: any.")
    signed_by: tuple[Digest, ...] = Field(
        (),
        description="Public keys of publishers; only a Fivefold whose every file one of them signed may read rows; none: any.",
    )
    code: tuple[Digest, ...] = Field(
        (), description="Digests of the methods' files that may run; `fivefold policy test` prints a study's."
    )
    encryption: bool = Field(False, description="true: messages come over TLS, or never leave the machine.")
    no_network: bool = Field(False, description="true: the process that computes has no network.")


class Statement(Frozen):
    """A file at this site, and the SHA-256 that it must have."""

    file: Name
    sha256: Digest


class Data(Frozen):
    """Safe data: in which state the frozen rows must be before a study reads them."""

    unreadable: Percent | None = Field(None, description="At most so many percent of a variable's cells may be unreadable.")
    missing: Percent | None = Field(None, description="At most so many percent of a variable's cells may be missing.")
    deidentification: Statement | None = Field(None, description="The statement that the records are de-identified.")
