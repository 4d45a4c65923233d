"""The envelope: within it the lead may vary an analysis without a new approval. Each site counts and logs what it answers.

A variation is a small file that the lead signs. It names the study by its digest, the analysis that it varies, and the new
analysis whole; nobody has to put it together again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fivefold.auth.keys import SIGNATURE_BYTES, public_from_hex, public_of, sign, verify
from fivefold.errors import KeyProblem, NotApproved, SignatureWrong, StudyAltered, StudyInvalid
from fivefold.study import formula
from fivefold.study.definition import Analysis, Study
from fivefold.study.digest import canonical_json, digest, parsed_json, read_bytes
from fivefold.study.document import ordered
from fivefold.study.expression_syntax import suggestion
from fivefold.study.schema import SHORT_NAME

PURPOSE = "variation"
FORMAT = "fivefold variation 1"
KEYS = {"format", "study", "varies", "analysis", "signature"}


class Variation(NamedTuple):
    """A signed variation: the study's digest (hex), the name of the analysis it varies, the new analysis, the signature."""

    study: str
    varies: str
    analysis: Analysis
    signature: bytes

    def to_bytes(self) -> bytes:
        """The variation file: canonical JSON with a final newline."""
        return canonical_json(_statement(self.study, self.varies, self.analysis) | {"signature": self.signature.hex()}) + b"\n"

    @property
    def statement_digest(self) -> str:
        """SHA-256 (hex) of what was signed: one statement, one variation."""
        return hashlib.sha256(canonical_json(_statement(self.study, self.varies, self.analysis))).hexdigest()


def varied(
    study: Study, name: str, new_name: str, *, formula: str | None = None, subgroup: str | None = None,
    variables: Sequence[str] | None = None, method: str | None = None,
) -> Analysis:  # fmt: skip
    """The study's analysis `name` with other parts, under a new name. Raises `StudyInvalid` where there is no such analysis."""
    base = next((a for a in study.analyses if a.name == name), None)
    if base is None:
        known = [a.name for a in study.analyses]
        raise StudyInvalid(f"the study has no analysis {name!r}", help=suggestion(name, known))
    changed: dict[str, Any] = {"formula": formula, "subgroup": subgroup, "method": method}
    changed["variables"] = None if variables is None else tuple(variables)
    if method is not None and method != base.method:
        changed["options"] = {}
    return dataclasses.replace(base, name=new_name, **{k: v for k, v in changed.items() if v is not None})


def within(study: Study, variation: Analysis) -> None:
    """Nothing if the analysis lies inside the study's envelope; else `NotApproved` with the rule that it breaks.

    Inside means: a method of the envelope; every variable that formula or list reads named in the envelope; no subgroup, or one
    of the envelope's, word for word; options as in an analysis of the study with the same method, or none; a name of its own.
    """
    envelope = study.envelope
    if envelope.fits < 1:
        raise _outside("the study's envelope allows no variation", "envelope_fits")
    if not re.fullmatch(SHORT_NAME, variation.name):
        raise _outside(f"{variation.name!r} cannot be a name", "envelope_name", "Use letters, digits, - and _ only.")
    if variation.name in {a.name for a in study.analyses}:
        raise _outside(f"the study has an analysis {variation.name!r} already", "envelope_name", "Give it another name.")
    if variation.method not in envelope.methods:
        raise _outside(f"the method {variation.method!r} is not in the study's envelope", "envelope_methods")
    for name in reads(variation):
        if name not in envelope.variables:
            raise _outside(f"the variable {name!r} is not in the study's envelope", "envelope_variables", variable=name)
    words = {" ".join(s.split()) for s in envelope.subgroups}
    if variation.subgroup and " ".join(variation.subgroup.split()) not in words:
        raise _outside("the subgroup is not in the study's envelope", "envelope_subgroups")
    alike = [dict(a.options) for a in study.analyses if a.method == variation.method]
    if variation.options and dict(variation.options) not in alike:
        raise _outside("the options are not those of an approved analysis", "envelope_options")


def reads(analysis: Analysis) -> tuple[str, ...]:
    """Every variable that an analysis names outside its options and subgroup, each once. Raises `FormulaInvalid`."""
    found = list(analysis.variables)
    if analysis.formula:
        found += formula.parse(analysis.formula).variables
    return tuple(dict.fromkeys(found))


def sign_variation(study: Study, varies: str, analysis: Analysis, private: bytes) -> Variation:
    """Sign a variation with the lead's key. Raises `KeyProblem` for any other key, `NotApproved` outside the envelope."""
    within(study, analysis)
    if public_of(private).hex() != study.lead.public_key:
        raise KeyProblem(
            f"this key is not that of the lead, {study.lead.name}", help="Sign with the key that signed the study."
        )
    of = digest(study)
    return Variation(of, varies, analysis, sign(private, canonical_json(_statement(of, varies, analysis)), PURPOSE))


def load_variation(source: str | Path | bytes, study: Study) -> Variation:
    """The variation of a study in a file or its bytes: digest, signature and envelope verified.

    Raises `StudyNotFound`, `StudyInvalid`, `StudyAltered` (made for another study), `SignatureWrong`, `NotApproved`.
    """
    instead = "Make one with `fivefold study vary STUDY`."
    value = parsed_json(source if isinstance(source, bytes) else read_bytes(Path(source)), "the variation", instead)
    if not isinstance(value, dict) or set(value) != KEYS or value["format"] != FORMAT:
        raise StudyInvalid("this is not a variation", help=instead)
    try:
        signature = bytes.fromhex(value["signature"])
    except (TypeError, ValueError):
        signature = b""
    if len(signature) != SIGNATURE_BYTES or signature.hex() != value["signature"]:
        raise SignatureWrong("the variation's signature is not 128 hex digits", rule="variation_signature")
    if value["study"] != digest(study):
        raise StudyAltered("the variation was made for another study, or for one that was changed since", rule="study_digest")
    unsigned = {k: v for k, v in value.items() if k != "signature"}
    try:
        verify(public_from_hex(study.lead.public_key), canonical_json(unsigned), signature, PURPOSE)
    except SignatureWrong as error:
        raise SignatureWrong(
            "the variation was not signed by the key of the study's lead", rule="variation_signature"
        ) from error
    analysis = _analysis(value["analysis"])
    if canonical_json(_statement(value["study"], str(value["varies"]), analysis)) != canonical_json(unsigned):
        raise StudyInvalid("the variation is not in its canonical form")
    within(study, analysis)
    base = next((a for a in study.analyses if a.name == value["varies"]), None)
    if base is not None and base.sites != analysis.sites:
        raise _outside("the variation is for other sites than the analysis that it varies", "envelope_sites")
    return Variation(value["study"], value["varies"], analysis, signature)


def load_variations(sources: Sequence[str | Path | bytes], study: Study) -> tuple[Variation, ...]:
    """The variations that a run is made of, in order. Raises what `load_variation` raises, and `StudyInvalid` for two of a
    name: a result could not say whose it is."""
    found = tuple(load_variation(source, study) for source in sources)
    names = [one.analysis.name for one in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise StudyInvalid(
            f"two variations are called {twice!r}", help="Name each once, or make one of them with another --name."
        )
    return found


def _analysis(value: Any) -> Analysis:
    from pydantic import ValidationError

    from fivefold.study.schema import AnalysisFile

    try:
        file = AnalysisFile.model_validate(value)
    except ValidationError as error:
        raise StudyInvalid("the variation holds no analysis as a study file would") from error
    return Analysis(**file.model_dump(exclude={"options"}), options=ordered(file.options))


def _statement(study: str, varies: str, analysis: Analysis) -> dict[str, Any]:
    parts = {k: v for k, v in dataclasses.asdict(analysis).items() if v or k != "sites"}
    return {"format": FORMAT, "study": study, "varies": varies, "analysis": _lists(parts)}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, (list, tuple)) else value


def _outside(what: str, rule: str, help: str | None = None, variable: str = "") -> NotApproved:
    return NotApproved(
        what, rule=rule, variable=variable,
        help=help or "Stay within the envelope, or sign a new study and have every custodian approve it.",
    )  # fmt: skip
