"""The same study with another seed is another study: the lead signs it, every custodian approves it.

A seed decides which rows a random split or batch takes. Whoever could choose it freely could try seeds until the answer suits,
or until two answers differ by one person. So no run takes a seed that nobody signed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fivefold.errors import StudyAltered, StudyInvalid, StudyNotFound
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy, load_signed, sign_study

MOST = 2**53 - 1


def reseeded(study: Study, seed: int) -> Study:
    """The study with another seed. Raises `StudyInvalid` for a seed that no study file can hold."""
    if not 0 <= seed <= MOST:
        raise StudyInvalid(f"the seed {seed} is not between 0 and {MOST}", help="Choose a smaller, not negative number.")
    return dataclasses.replace(study, seed=seed)


def sign_reseeded(study: Study, seed: int, private: bytes) -> SignedStudy:
    """Sign the study with another seed, by the lead's key (32 bytes). Raises `StudyInvalid`, `KeyProblem`."""
    return sign_study(reseeded(study, seed), private)


def reseeded_file(signed: Path, seed: int) -> Path:
    """Where a study's twin with another seed lies: `study.seed-7.signed.json` beside `study.signed.json`."""
    return signed.with_name(f"{signed.name.split('.')[0]}.seed-{seed}.signed.json")


def load_reseeded(signed: Path, found: SignedStudy, seed: int) -> SignedStudy:
    """The signed study with this seed: the one that was found, or its twin beside it, which differs in nothing but the seed.

    Raises `StudyNotFound` with what to do next where nobody signed it, `StudyAltered` where the twin belongs to another study.
    """
    if seed == found.study.seed:
        return found
    wanted, path = reseeded(found.study, seed), reseeded_file(signed, seed)
    if not path.exists():
        raise StudyNotFound(
            f"the seed is part of the signed study ({found.study.seed}), and nobody has signed it with {seed}",
            help=f"Sign it by `fivefold study reseed {signed} --seed {seed} --key KEY`; each custodian approves {path.name}.",
        )
    twin = load_signed(path)
    if twin.study != wanted:
        raise StudyAltered(
            f"{path.name} differs from {signed.name} in more than its seed",
            help=f"Sign it anew: `fivefold study reseed {signed} --seed {seed} --key KEY --replace`.",
        )
    return twin
