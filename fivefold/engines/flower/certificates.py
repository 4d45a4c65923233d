"""Certificates and connection keys: the coordinator's own authority and server certificate, a site's connection key.

The authority lives in the coordinator's folder; sites are given its certificate and trust no other. A site's connection key
(ECDSA P-384, which Flower's node authentication wants) says only who may connect; who a site is, its Ed25519 key says.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fivefold.errors import KeyProblem, SourceNotFound

AUTHORITY_DAYS, SERVER_DAYS = 1825, 397
CONNECTION_KEY, CONNECTION_PUB = "connection.key", "connection.pub"


def make_authority(folder: Path) -> None:
    """`ca.key` (0600) and `ca.pem` in a folder; nothing where they are there."""
    if (folder / "ca.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fivefold coordinator authority")])
    now = datetime.now(UTC)
    certificate = (
        _certificate(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    _secret(folder / "ca.key", _pem(key))
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def check_authority(path: Path) -> None:
    """Raises `SourceNotFound` where a file is no certificate of an authority."""
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise SourceNotFound(f"{path} is not a certificate", help="Ask the coordinator for its ca.pem again.") from error


def make_server(folder: Path, hosts: Sequence[str]) -> None:
    """`server.key` (0600) and `server.pem` for these hosts, signed by the folder's authority; made anew at each call."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _certificate(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]),
            authority.subject,
            key.public_key(),
            datetime.now(UTC),
            SERVER_DAYS,
        )
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in dict.fromkeys(hosts)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    (folder / "server.key").unlink(missing_ok=True)
    _secret(folder / "server.key", _pem(key))
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def make_connection_key(keys: Path) -> str:
    """A site's connection key in its folder `keys/`: made where there is none. Returns the public half, PEM."""
    if not (keys / CONNECTION_KEY).exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _secret(keys / CONNECTION_KEY, _pem(key))
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (keys / CONNECTION_PUB).write_bytes(public)
    return (keys / CONNECTION_PUB).read_text("ascii")


def read_connection_key(keys: Path) -> ec.EllipticCurvePrivateKey:
    """Raises `KeyProblem` where there is none, others can read it, or it is of another kind."""
    path = keys / CONNECTION_KEY
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise KeyProblem(f"others can read the key file {path}", help=f"Take their rights away: chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyProblem(
            f"there is no readable connection key at {path}",
            help="Make one with `fivefold site connection --site FOLDER`, and send its public half to the coordinator.",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyProblem(
            f"{path} holds a key of another kind than ECDSA",
            help="Move it away, make one with `fivefold site connection --site FOLDER`, and send its public half.",
        )
    return key


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _secret(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
