"""A research package as a BagIt bag (RFC 8493, SHA-512), signed over its tag manifest (Ed25519).

    BAG/bagit.txt  bag-info.txt  manifest-sha512.txt  tagmanifest-sha512.txt   by the Library of Congress' bagit
    BAG/signature.json                                                         who vouches for the tag manifest
    BAG/data/                                                                  the crate

The tag manifest names the payload manifest, which names every file: one signature holds all. The signature cannot be named by
what it signs, so it is the one tag file without a checksum.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fivefold.auth import keys
from fivefold.errors import CrateInvalid, KeyProblem, SignatureWrong
from fivefold.records.files import write_file

ALGORITHM = "sha512"
TAGS = f"tagmanifest-{ALGORITHM}.txt"
SIGNATURE = "signature.json"
PURPOSE = "research package"
PAYLOAD = "data"
DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
"""bagit 1.9 still writes 0.97; what it writes otherwise is the same in both versions for names without `%`."""
MAX_BYTES = 4 << 30
AGAIN = "Take the package from a copy, or pack the run again with `fivefold crate build RUN`."


@dataclass(frozen=True)
class Signed:
    """Who signed a bag: the public key, and what the signer says of itself (`coordinator`, `lead`)."""

    key: bytes
    role: str


def make_bag(folder: Path, info: Mapping[str, str], private: bytes, role: str) -> None:
    """Turn a folder of payload files into a signed bag, in place. Raises `CrateInvalid` if bagit cannot."""
    import bagit

    logging.getLogger("bagit").setLevel(logging.CRITICAL)
    try:
        bagit.make_bag(str(folder), bag_info=dict(info), checksums=[ALGORITHM])
        (folder / "bagit.txt").write_text(DECLARATION, encoding="utf-8")
        tags = ("bag-info.txt", "bagit.txt", f"manifest-{ALGORITHM}.txt")
        sums = {name: hashlib.sha512((folder / name).read_bytes()).hexdigest() for name in tags}
        (folder / TAGS).write_text("".join(f"{checksum}  {name}\n" for name, checksum in sums.items()), encoding="utf-8")
    except (bagit.BagError, OSError, RuntimeError) as error:
        raise CrateInvalid(f"the package could not be packed: {error}", help="Look at the folder's rights.") from error
    sign_bag(folder, private, role)


def sign_bag(folder: Path, private: bytes, role: str) -> None:
    """Sign the tag manifest as it stands now."""
    signature = keys.sign(private, (folder / TAGS).read_bytes(), PURPOSE)
    value = {"signs": TAGS, "role": role, "key": keys.public_of(private).hex(), "signature": signature.hex()}
    write_file(folder / SIGNATURE, json.dumps(value, indent=2).encode() + b"\n")


def signed_by(folder: Path) -> Signed:
    """Whose signature holds the bag. Raises `CrateInvalid` where it is missing, malformed or wrong."""
    try:
        value = json.loads((folder / SIGNATURE).read_bytes())
        key, signature, role = bytes.fromhex(value["key"]), bytes.fromhex(value["signature"]), str(value["role"])
        keys.verify(key, (folder / TAGS).read_bytes(), signature, PURPOSE)
    except OSError as error:
        raise CrateInvalid(f"{folder} is not a signed package", help=AGAIN) from error
    except (ValueError, KeyError, TypeError, SignatureWrong, KeyProblem) as error:
        raise CrateInvalid(f"the signature of {folder} does not fit: the package was changed", help=AGAIN) from error
    return Signed(key, role)


def bag_faults(folder: Path) -> list[str]:
    """A sentence for each file that is missing, surplus or altered; none if the bag is whole."""
    import bagit

    logging.getLogger("bagit").setLevel(logging.CRITICAL)
    try:
        bagit.Bag(str(folder)).validate()
    except bagit.BagValidationError as error:
        return [str(one) for one in error.details] or [error.message]
    except (bagit.BagError, OSError, UnicodeDecodeError, ValueError) as error:
        return [f"this is not a bag: {error}"]
    return []


def payload_faults(folder: Path) -> list[str]:
    """Faults between the payload and its manifest: both ways, every checksum."""
    listed = _manifest(folder / f"manifest-{ALGORITHM}.txt")
    present = {p.relative_to(folder).as_posix() for p in (folder / PAYLOAD).rglob("*") if p.is_file()}
    surplus = [f"{name} stands in no manifest" for name in sorted(present - set(listed))]
    return [*_differing(folder, listed), *surplus]


def tag_faults(folder: Path) -> list[str]:
    """Faults between the tag files and their manifest."""
    return list(_differing(folder, _manifest(folder / TAGS)))


def _differing(folder: Path, listed: Mapping[str, str]) -> Iterator[str]:
    for name, checksum in listed.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"{name} lies outside the bag"
        elif not path.is_file():
            yield f"{name} is missing"
        elif hashlib.sha512(path.read_bytes()).hexdigest() != checksum:
            yield f"{name} was changed"


def _manifest(path: Path) -> dict[str, str]:
    """Path → checksum; the escapes of RFC 8493, section 2.1.3, undone."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return {unquote(name.strip()): checksum.lower() for checksum, name in (p for p in pairs if len(p) == 2)}


def bag_info(folder: Path) -> dict[str, Any]:
    """What bag-info.txt says. Raises `CrateInvalid` where there is no bag."""
    import bagit

    logging.getLogger("bagit").setLevel(logging.CRITICAL)
    try:
        return dict(bagit.Bag(str(folder)).info)
    except (bagit.BagError, OSError, UnicodeDecodeError, ValueError) as error:
        raise CrateInvalid(f"{folder} is not a packed crate", help="Pack a run with `fivefold crate build RUN`.") from error


def zip_bag(folder: Path, target: Path) -> Path:
    """The bag as one ZIP with a single top-level folder, as the profile wants it: times fixed, so that equal bags give equal
    bytes. Raises `CrateInvalid` where the file cannot be written."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CrateInvalid(f"{target} could not be written: {error.strerror}", help="Free space, or name another.") from error
    return target


def unzip_bag(archive: Path, into: Path) -> Path:
    """Unpack a zipped bag; the folder of the bag. Raises `CrateInvalid` for anything but one folder of plain files, for names
    that lead outside, and for contents that swell beyond `MAX_BYTES`."""
    try:
        with zipfile.ZipFile(archive) as found:
            names = found.namelist()
            tops = {name.split("/", 1)[0] for name in names}
            if len(tops) != 1 or sum(one.file_size for one in found.infolist()) > MAX_BYTES:
                raise CrateInvalid(f"{archive} is not a package: it must hold one folder", help=AGAIN)
            for one in found.infolist():
                target = (into / one.filename).resolve()
                if not target.is_relative_to(into.resolve()) or (one.external_attr >> 16) & 0o170000 == 0o120000:
                    raise CrateInvalid(f"{archive} holds a name that leads outside: {one.filename!r}", help=AGAIN)
            found.extractall(into)
            return into / tops.pop()
    except (zipfile.BadZipFile, OSError) as error:
        raise CrateInvalid(f"{archive} is not a package that can be read", help=AGAIN) from error


def payload_of(path: Path) -> Path:
    """The crate inside: `data/` of a bag, or the folder itself."""
    return path / PAYLOAD if (path / "bagit.txt").is_file() else path


def require_whole(folder: Path) -> Signed:
    """The signer of a bag that is whole. Raises `CrateInvalid` with the first faults."""
    faults = bag_faults(folder)
    if faults:
        raise CrateInvalid("; ".join(faults[:5]), help=AGAIN)
    return signed_by(folder)
