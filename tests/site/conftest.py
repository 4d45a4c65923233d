"""A consortium of three hospitals on disk, with real keys and a signed study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth import keys
from fivefold.governance.custody import node_key
from fivefold.site.folder import SiteFolder, create, read_private
from fivefold.study.definition import (
    Agreements,
    Analysis,
    Cohort,
    Derived,
    Envelope,
    Lead,
    Outputs,
    Privacy,
    Study,
    StudySite,
)
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.digest import SignedStudy, sign_study
from tests.site.secure_sum_bench import Bench

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)

DICTIONARY = Dictionary(
    "clinic",
    "1",
    {
        v.name: v
        for v in (
            Variable("patient", "Patient number", "text"),
            Variable("age", "Age", "number", "year", 0, 120),
            Variable("weight", "Weight", "number", "kg", 1, 300),
            Variable("sex", "Sex", "category", codes={"female": "Female", "male": "Male"}, missing_codes=("unknown",)),
        )
    },
)

MAPPING = """\
source: {kind: csv, path: rows.csv}
person: id
variables:
  age: {column: age_months, unit: month}
  weight: {column: weight_g, unit: g}
  sex: {column: gender, codes: {1: male, 2: female}, missing: [9]}
"""


@dataclass(frozen=True)
class Consortium:
    site: SiteFolder
    lead: bytes
    study: Study

    @property
    def custodian(self) -> bytes:
        return read_private(self.site.path / "keys" / "custodian.key")

    def write_rows(self, *more: str, skip: tuple[int, ...] = (), rows: int = 40, heavier: int | None = None) -> None:
        """The same rows each time, without those to skip, one person a kilogram heavier, and more lines after them."""
        rng = np.random.default_rng(1)
        lines = ["id,age_months,weight_g,gender"]
        for i in range(rows):
            age, weight, sex = int(rng.integers(240, 1100)), int(rng.integers(45_000, 120_000)), int(rng.integers(1, 3))
            if i not in skip:
                lines.append(f"P{i:03d},{age},{weight + (1000 if i == heavier else 0)},{sex}")
        (self.site.path / "rows.csv").write_text("\n".join([*lines, *more]) + "\n")

    def signed(self, **changes: Any) -> SignedStudy:
        return sign_study(replace(self.study, **changes), self.lead)

    def rewrite(self, old: str, new: str) -> None:
        """Change site.yaml's text; unsigned."""
        path = self.site.path / "site.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def consortium(tmp_path: Path, now: datetime) -> Consortium:
    lead = keys.new_key()
    peers = {name: create(tmp_path / name, name, now=now) for name in ("bern", "genf")}
    listed = [{"site": n, "fingerprint": keys.fingerprint(bytes.fromhex(node_key(s.path)))} for n, s in peers.items()]
    site = create(tmp_path / "basel", "basel", policy={"peers": listed}, mapping=MAPPING, now=now)
    study = Study(
        title="Weight and age",
        question="Does weight follow age?",
        lead=Lead("Ada Lead", "University", keys.public_of(lead).hex()),
        sites=tuple(StudySite(n, node_key(s.path)) for n, s in {"basel": site, **peers}.items()),
        dictionary=DICTIONARY,
        person="patient",
        cohort=Cohort(include=("age >= 18",)),
        variables={"age": "exposure", "weight": "outcome", "sex": "adjustment"},
        derived=(Derived(Variable("heavy", "Heavy", "boolean"), "weight > 80"),),
        analyses=(
            Analysis("means", "statistics", variables=("age", "weight")),
            Analysis("slope", "glm", formula="weight ~ age + sex", options={"family": "gaussian"}),
        ),
        envelope=Envelope(),
        privacy=Privacy(),
        outputs=Outputs(),
        agreements=Agreements("EK 2026-1", "research", "2027-06-30"),
    )
    made = Consortium(site, lead, study)
    made.write_rows()
    return made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    it = Bench(tmp_path, 5)
    yield it
    it.stop()


@pytest.fixture
def curious(tmp_path: Path) -> Iterator[Bench]:
    it = Bench(tmp_path, 5, adversary="curious")
    yield it
    it.stop()
