"""Ed25519 keys: who signs a study, an approval, a policy, a message (RFC 8032).

A private key is 32 bytes, a public key 32 bytes (64 hex digits in a study file), a signature 64 bytes. Every signature names
its *purpose*, so that a signature given for one thing is never valid for another.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fivefold.errors import KeyProblem, SignatureWrong, StorageFull

KEY_BYTES = 32
SIGNATURE_BYTES = 64
DOMAIN = b"fivefold/signature/1\0"


def new_key() -> bytes:
    """A fresh private key (32 bytes) from the operating system's randomness."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """The public half (32 bytes) of a private key."""
    return _private(private).public_key().public_bytes_raw()


def sign(private: bytes, message: bytes, purpose: str) -> bytes:
    """The signature (64 bytes) of `message`, valid for `purpose` alone."""
    return _private(private).sign(_framed(message, purpose))


def verify(public: bytes, message: bytes, signature: bytes, purpose: str) -> None:
    """Nothing if the signature is right; `SignatureWrong` if it is not, `KeyProblem` if the key itself is malformed."""
    key = _public(public)
    try:
        key.verify(signature, _framed(message, purpose))
    except InvalidSignature as error:
        raise SignatureWrong(
            f"the signature of this {purpose} was not made by the key {fingerprint(public)}", rule="signature"
        ) from error


def fingerprint(public: bytes) -> str:
    """The first 16 bytes of the key's SHA-256 as eight groups of four hex digits, to be read out over a telephone."""
    text = hashlib.sha256(public).hexdigest()[:32]
    return " ".join(text[i : i + 4] for i in range(0, 32, 4))


def public_from_hex(text: str) -> bytes:
    """The public key (32 bytes) written as 64 hex digits. Raises `KeyProblem` if it is not one."""
    try:
        public = bytes.fromhex(text.strip())
    except ValueError as error:
        raise KeyProblem("a public key is 64 hex digits", help="Copy it from `fivefold keys show FILE`.") from error
    _public(public)
    return public


def write_key(path: str | Path, private: bytes, passphrase: str | None = None) -> None:
    """Write a private key as PKCS #8 PEM, readable by its owner alone (mode 0600), encrypted if a passphrase is given.

    Never overwrites: raises `KeyProblem` if the file exists or its folder does not.
    """
    path = Path(path)
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        if not passphrase:
            raise KeyProblem("the passphrase is empty", help="Type one, or leave the passphrase out altogether.")
        how = serialization.BestAvailableEncryption(passphrase.encode())
    pem = _private(private).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyProblem(f"{path} exists already, and a key is never overwritten", help="Choose another file name.") from error
    except OSError as error:
        raise KeyProblem(f"{path} cannot be written: {error.strerror}", help="Choose a folder that exists.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageFull(f"{path} could not be written: {error.strerror}", help="Free space on the disk.") from error


def read_key(path: str | Path, passphrase: str | None = None) -> bytes:
    """The private key (32 bytes) in a file made by `write_key`.

    Raises `KeyProblem` if there is no such file, if others than its owner can read it, if it is not an Ed25519 private key,
    or if the passphrase is missing, wrong or superfluous.
    """
    path = Path(path)
    pem = _read(path)
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except TypeError as error:
        if passphrase:
            raise KeyProblem(f"{path} is not encrypted", help="Leave the passphrase out.") from error
        raise KeyProblem(f"{path} is encrypted", help="Give its passphrase with FIVEFOLD_PASSPHRASE.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase:
            raise KeyProblem(f"the passphrase does not open {path}", help="Type the passphrase again.") from error
        raise KeyProblem(f"{path} is not a private key file") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{path} holds a key of another kind than Ed25519")
    return key.private_bytes_raw()


def is_encrypted(path: str | Path) -> bool:
    """Whether the key file asks for a passphrase. Raises `KeyProblem` as `read_key` does."""
    return b"BEGIN ENCRYPTED PRIVATE KEY" in _read(Path(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(1 << 16)
    except OSError as error:
        raise KeyProblem(f"the key file {path} cannot be read: {error.strerror}") from error
    if b"PRIVATE KEY" not in pem:
        hint = "Name the private half: it lies beside the .pub, and ends in .key." if path.suffix == ".pub" else KeyProblem.help
        raise KeyProblem(f"{path} is not a private key file", help=hint)
    if os.name == "posix" and mode & 0o077:
        raise KeyProblem(f"others can read the key file {path}", help=f"Take their rights away: chmod 600 {path}")
    return pem


def _private(private: bytes) -> Ed25519PrivateKey:
    if len(private) != KEY_BYTES:
        raise KeyProblem(f"a private key has {KEY_BYTES} bytes, not {len(private)}")
    return Ed25519PrivateKey.from_private_bytes(private)


def _public(public: bytes) -> Ed25519PublicKey:
    if len(public) != KEY_BYTES:
        raise KeyProblem(f"a public key has {KEY_BYTES} bytes (64 hex digits), not {len(public)}")
    return Ed25519PublicKey.from_public_bytes(public)


def _framed(message: bytes, purpose: str) -> bytes:
    if not purpose or "\0" in purpose:
        raise ValueError("a purpose is text without NUL")
    return DOMAIN + purpose.encode() + b"\0" + message
