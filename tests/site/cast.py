"""The people of a site: who they are, and what they sign."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.errors import FivefoldError
from fivefold.governance import register, safe_projects
from fivefold.governance.approvals import approve
from fivefold.governance.custody import sign_policy
from fivefold.governance.safe_settings import SURROUNDINGS
from fivefold.site.admission import admitted
from fivefold.study.definition import OutputChecker, Outputs
from fivefold.study.digest import SignedStudy

SOON, LATE = date(2026, 12, 31), date(2027, 11, 1)
PEOPLE = """
people:
  required: [lead, checker]
  training:
    - {course: data-protection, roles: [lead, checker]}
    - {course: disclosure-control, roles: [checker]}
  terms: "2026"
"""


def written(text: str, block: str) -> str:
    """A policy with one of its empty keys filled in."""
    key = block.strip().partition(":")[0]
    assert not key or f"\n{key}: null\n" in text
    return text.replace(f"\n{key}: null\n", f"\n{block.strip()}\n")


class Cast:
    """A lead, two checkers and a reviewer with keys of their own, at a site whose policy has one more block."""

    def __init__(self, consortium: Any, block: str, now: datetime) -> None:
        self.site, self.custodian, self.now = consortium.site, consortium.custodian, now
        self.keys = {name: keys.new_key() for name in ("Ada Check", "Bo Check", "Rita Review", "Rolf Review")} | {
            "Ada Lead": consortium.lead
        }
        checkers = tuple(OutputChecker(n, "Bureau", self.public(n)) for n in ("Ada Check", "Bo Check"))
        self.signed: SignedStudy = consortium.signed(outputs=Outputs(checkers=checkers))
        path = self.site.path / "site.yaml"
        path.write_text(written(path.read_text().replace("version: 1\n", "version: 2\n"), block))
        sign_policy(self.site.path, self.custodian, now=now)

    def public(self, name: str) -> str:
        return keys.public_of(self.keys[name]).hex()

    def grant(
        self, name: str, *roles: Any, by: bytes | None = None, until: date = LATE, organisation: str = "Bureau", **more: Any
    ) -> None:
        register.grant(
            self.site.path, self.site.custody(self.now), by or self.custodian, name=name, organisation=organisation,
            key=self.public(name), roles=roles, until=until, now=self.now, **more,
        )  # fmt: skip

    def train(self, name: str, course: str, *, until: date = LATE, by: bytes | None = None) -> None:
        custody = self.site.custody(self.now)
        register.train(
            self.site.path, custody, by or self.custodian, key=self.public(name), course=course, until=until, now=self.now
        )

    def accept(self, name: str, *, until: date = LATE, by: bytes | None = None) -> None:
        custody = self.site.custody(self.now)
        register.accept(
            self.site.path, custody, by or self.keys[name], key=self.public(name), terms="2026", until=until, now=self.now
        )

    def approve(self) -> None:
        approve(self.site.path, self.signed.study, self.signed.digest, self.custodian, now=self.now)

    def admit(self, engine: str = "local", when: datetime | None = None) -> None:
        admitted(self.site, self.signed, self.site.node_key(), (), when or self.now, SURROUNDINGS[engine])

    def review(self, name: str, **more: Any) -> None:
        custody = self.site.custody(self.now)
        safe_projects.review(
            self.site.path, custody, self.signed.study, self.signed.digest, self.keys[name], now=self.now, **more
        )


def refused(rule: str, act: Any, *words: Any, **more: Any) -> str:
    with pytest.raises(FivefoldError) as found:
        act(*words, **more)
    assert found.value.rule == rule, found.value.message
    return found.value.message
