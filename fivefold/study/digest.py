"""The study's one true form: canonical bytes (RFC 8785), their SHA-256 digest, and the lead's signature (Ed25519).

The signed file is what travels to the sites. Whoever loads it gets a study that was checked as strictly as a file is, and whose
canonical form is, byte for byte, what was signed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from fivefold.auth.keys import SIGNATURE_BYTES, public_from_hex, public_of, sign, verify
from fivefold.errors import KeyProblem, SignatureWrong, StudyAltered, StudyInvalid, StudyNotFound
from fivefold.study.definition import Study
from fivefold.study.document import document
from fivefold.study.yaml import from_document

PURPOSE = "study"
SIGNED_FORMAT = "fivefold signed study 1"
MAX_BYTES = 8 << 20
NOT_SIGNED = "Name the file that `fivefold study sign STUDY` wrote."


class SignedStudy(NamedTuple):
    """A study, its digest (64 hex digits) and the lead's signature (64 bytes)."""

    study: Study
    digest: str
    signature: bytes

    def to_bytes(self) -> bytes:
        """The signed file: canonical JSON of study, digest and signature, with a final newline."""
        value = {
            "format": SIGNED_FORMAT,
            "study": document(self.study),
            "digest": self.digest,
            "signature": self.signature.hex(),
        }
        return canonical_json(value) + b"\n"


def canonical(study: Study) -> bytes:
    """The study as canonical JSON (RFC 8785, UTF-8), its dictionary's content included."""
    return canonical_json(document(study))


def digest(study: Study) -> str:
    """SHA-256 of the canonical form, 64 hex digits."""
    return hashlib.sha256(canonical(study)).hexdigest()


def study_from(data: bytes) -> Study:
    """The study of its canonical bytes. Raises `StudyInvalid`, or `StudyAltered` where the bytes are not canonical."""
    study = from_document(parsed_json(data))
    if canonical(study) != data.strip():
        raise StudyAltered("the frozen study is not in its canonical form")
    return study


def sign_study(study: Study, private: bytes) -> SignedStudy:
    """Sign with the lead's private key (32 bytes). Raises `KeyProblem` for any other key."""
    if public_of(private).hex() != study.lead.public_key:
        raise KeyProblem(
            f"this key is not that of the lead, {study.lead.name}",
            help="Sign with the key whose public half stands under `lead: public_key`.",
        )
    return SignedStudy(study, digest(study), sign(private, canonical(study), PURPOSE))


def load_signed(source: str | Path | bytes) -> SignedStudy:
    """The signed study in a file or its bytes, its digest and signature verified.

    The key is the one that the study itself names as its lead's: whether that is the lead, the custodian settles by comparing
    fingerprints. Raises `StudyNotFound`, `StudyInvalid`, `StudyAltered` (a byte differs from what was signed) or
    `SignatureWrong`.
    """
    name, instead = ("this", NOT_SIGNED) if isinstance(source, bytes) else (str(source), _signed_instead(Path(source)))
    value = parsed_json(source if isinstance(source, bytes) else read_bytes(Path(source), "signed study"), name, instead)
    if (
        not isinstance(value, dict)
        or set(value) != {"format", "study", "digest", "signature"}
        or value["format"] != SIGNED_FORMAT
    ):
        raise StudyInvalid(f"{name} is not a signed study", help=instead)
    try:
        signature = bytes.fromhex(value["signature"])
    except (TypeError, ValueError):
        signature = b""
    if len(signature) != SIGNATURE_BYTES or signature.hex() != value["signature"]:
        raise SignatureWrong("the study's signature is not 128 hex digits", rule="study_signature")
    signed = canonical_json(value["study"])
    if hashlib.sha256(signed).hexdigest() != value["digest"]:
        raise StudyAltered("the study was changed after it was signed: its digest is another", rule="study_digest")
    study = from_document(value["study"], "the signed study")
    if canonical(study) != signed:
        raise StudyAltered("the signed study is not in its canonical form", rule="study_digest")
    try:
        verify(public_from_hex(study.lead.public_key), signed, signature, PURPOSE)
    except SignatureWrong as error:
        raise SignatureWrong(
            f"the study was not signed by the key of its lead, {study.lead.name}", rule="study_signature"
        ) from error
    return SignedStudy(study, value["digest"], signature)


def signed_file(study: Path) -> Path:
    """The signed study that is meant: the file itself, or STUDY.signed.json beside STUDY.yaml. Raises `StudyNotFound`."""
    if study.is_dir():
        raise StudyNotFound(f"{study} is a folder, not a study", help=f"Give the file, such as {study / 'study.yaml'}.")
    if not study.exists():
        raise StudyNotFound(f"there is no study at {study}")
    signed = study if study.suffix == ".json" else _beside(study)
    if not signed.exists():
        raise StudyNotFound(f"there is no signed study at {signed}", help=f"Sign it: `fivefold study sign {study} --key KEY`.")
    return signed


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name.split('.')[0]}.signed.json")


def _signed_instead(path: Path) -> str:
    """What to do where a file is not a signed study: most often somebody named the study file that lies beside it."""
    beside = _beside(path)
    if beside != path and beside.is_file():
        return f"Name the signed file: {beside}."
    return f"Make one with `fivefold study sign {path} --key KEY`." if path.suffix in (".yaml", ".yml") else NOT_SIGNED


def read_bytes(path: Path, what: str = "file") -> bytes:
    """The bytes of a signed file that somebody sent. Raises `StudyNotFound`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        instead = NOT_SIGNED if what == "signed study" else "Check the path; ask whoever made the file to send it again."
        raise StudyNotFound(f"the {what} {path} cannot be read: {error.strerror}", help=instead) from error


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of JSON values. Raises `StudyInvalid` for what JSON cannot carry exactly."""
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeError) as error:
        raise StudyInvalid("the study holds a value that JSON cannot carry exactly") from error


def parsed_json(data: bytes, name: str = "this", instead: str = NOT_SIGNED) -> Any:
    """JSON from strangers: no double keys, no NaN, nothing huge."""
    if len(data) > MAX_BYTES:
        raise StudyInvalid(f"{name} is larger than 8 MiB, too large for a study")
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_never, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise StudyInvalid(f"{name} is not a frozen or signed study: it is not JSON", help=instead) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out


def _whole(digits: str) -> int | float:
    # The canonical form writes doubles up to 1e21 without an exponent; they come back as doubles.
    number = int(digits) if len(digits) < 18 else 1 << 60
    return number if abs(number) < 1 << 53 else float(digits)


def _never(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
