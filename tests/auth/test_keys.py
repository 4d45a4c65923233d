"""Keys: RFC 8032 vectors underneath, purposes apart, files that only their owner reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fivefold.auth import keys
from fivefold.errors import KeyProblem, SignatureWrong


def test_public_half_is_that_of_rfc_8032_section_7_1() -> None:
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    assert keys.public_of(private).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_a_signature_holds_for_its_message_key_and_purpose_alone() -> None:
    private, other = keys.new_key(), keys.new_key()
    public = keys.public_of(private)
    signature = keys.sign(private, b"message", "study")
    assert len(signature) == keys.SIGNATURE_BYTES
    keys.verify(public, b"message", signature, "study")
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for key, message, sig, purpose in [
        (public, b"massage", signature, "study"),
        (public, b"message", flipped, "study"),
        (public, b"message", signature[:-1], "study"),
        (public, b"message", signature, "approval"),
        (keys.public_of(other), b"message", signature, "study"),
    ]:
        with pytest.raises(SignatureWrong):
            keys.verify(key, message, sig, purpose)


def test_purpose_and_message_cannot_run_into_each_other() -> None:
    private = keys.new_key()
    signature = keys.sign(private, b"b", "a")
    with pytest.raises(SignatureWrong):
        keys.verify(keys.public_of(private), b"", signature, "ab")
    with pytest.raises(ValueError, match="NUL"):
        keys.sign(private, b"", "a\0b")
    with pytest.raises(ValueError, match="purpose"):
        keys.sign(private, b"", "")


def test_fingerprint_is_read_in_groups() -> None:
    text = keys.fingerprint(bytes(32))
    assert text == "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_key_file_round_trip_and_mode(tmp_path: Path, passphrase: str | None) -> None:
    private = keys.new_key()
    path = tmp_path / "lead.key"
    keys.write_key(path, private, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.read_key(path, passphrase) == private
    assert keys.is_encrypted(path) is (passphrase is not None)
    assert private not in path.read_bytes()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lead.key"
    keys.write_key(path, keys.new_key())
    before = path.read_bytes()
    with pytest.raises(KeyProblem, match="never overwritten"):
        keys.write_key(path, keys.new_key())
    assert path.read_bytes() == before


def test_bad_key_files_are_named(tmp_path: Path) -> None:
    plain, locked = tmp_path / "plain.key", tmp_path / "locked.key"
    keys.write_key(plain, keys.new_key())
    keys.write_key(locked, keys.new_key(), "open sesame")
    other = tmp_path / "x25519.key"
    other.write_bytes(
        X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    other.chmod(0o600)
    junk = tmp_path / "junk.key"
    junk.write_text("not a key")
    junk.chmod(0o600)
    for path, passphrase, words in [
        (tmp_path / "absent.key", None, "cannot be read"),
        (plain, "superfluous", "is not encrypted"),
        (locked, None, "is encrypted"),
        (locked, "wrong", "does not open"),
        (other, None, "another kind"),
        (junk, None, "not a private key file"),
    ]:
        with pytest.raises(KeyProblem, match=words):
            keys.read_key(path, passphrase)
    plain.chmod(0o640)
    with pytest.raises(KeyProblem, match="others can read") as caught:
        keys.read_key(plain)
    assert "chmod 600" in caught.value.hint


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="32 bytes"):
        keys.public_of(b"short")
    with pytest.raises(KeyProblem, match="64 hex digits"):
        keys.verify(b"short", b"", b"", "study")
    with pytest.raises(KeyProblem, match="64 hex"):
        keys.public_from_hex("zz")
    with pytest.raises(KeyProblem, match="64 hex"):
        keys.public_from_hex("ab")
    with pytest.raises(KeyProblem, match="empty"):
        keys.write_key(tmp_path / "a.key", keys.new_key(), "")
    with pytest.raises(KeyProblem, match="cannot be written"):
        keys.write_key(tmp_path / "no" / "such" / "a.key", keys.new_key())
    public = keys.public_of(keys.new_key())
    assert keys.public_from_hex(public.hex()) == public


def test_a_full_disk_leaves_no_half_key(tmp_path: Path) -> None:
    path = tmp_path / "lead.key"
    script = f"""
import resource, signal
from fivefold.auth import keys
from fivefold.errors import StorageFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    keys.write_key({str(path)!r}, keys.new_key())
except StorageFull:
    raise SystemExit(0)
raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-B", "-c", script], check=True)
    assert not path.exists()
