"""Can this site reach its coordinator? The way there, the certificates, and the two clocks, over TLS; nothing is sent."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509

from fivefold.engines.flower.certificates import read_connection_key
from fivefold.engines.flower.dialect import admitted, installed
from fivefold.errors import EngineMissing, FivefoldError
from fivefold.site.doctor import Check, dated
from fivefold.site.folder import SiteFolder

TIMEOUT = 10.0
SKEW_WARNING, SKEW_FAULT = 5.0, 60.0
"""Seconds between two clocks: signatures carry times, and certificates begin and end."""


def way_out(site: SiteFolder, address: str, authority: Path, when: datetime) -> Iterator[Check]:
    """What `fivefold site start` needs: flwr, a child without a network, the connection key, and the coordinator."""
    yield _flwr()
    yield _isolated()
    try:
        read_connection_key(site.keys)
        yield Check("connection key", "ok", "there, and readable by its owner alone")
    except FivefoldError as error:
        yield Check("connection key", "fault", error.message, error.hint)
    yield from reached(address, authority, when)


def reached(address: str, authority: Path, when: datetime) -> Iterator[Check]:
    """The authority's certificate, the port, the server's certificate, and the clock."""
    today = when.astimezone(UTC).date()
    ask = "Ask the coordinator for its ca.pem again."
    try:
        ca = x509.load_pem_x509_certificate(authority.read_bytes())
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ValueError, ssl.SSLError):
        yield Check("root certificate", "fault", f"{authority} is no readable certificate", ask)
        return
    yield dated("root certificate", ca.not_valid_after_utc.date(), today, "the coordinator's authority is valid", ask)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        yield Check("port", "fault", f"{address} is no address", "Write HOST:PORT, as the coordinator gave it.")
        return
    try:
        with socket.create_connection((host, int(port)), TIMEOUT) as plain:
            yield Check("port", "ok", f"{address} answers")
            with context.wrap_socket(plain, server_hostname=host) as secure:
                der = secure.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError as error:
        then = "Compare ca.pem and the address with the coordinator's; if both fit, this machine's clock may be wrong."
        yield Check("server certificate", "fault", f"it is not trusted: {error.verify_message}", then)
        return
    except (OSError, ssl.SSLError) as error:
        then = "Is the coordinator started? May this machine connect out to that port? Ask your firewall's administrator."
        yield Check("port", "fault", f"{address} cannot be reached: {error}", then)
        return
    until = x509.load_der_x509_certificate(der).not_valid_after_utc.date()
    yield dated("server certificate", until, today, "trusted", "The coordinator makes a new one when it starts.")
    yield _clock(host, int(port), context)


def _clock(host: str, port: int, context: ssl.SSLContext) -> Check:
    """This clock against the `Date` of an answer (RFC 9110, 6.6.1; whole seconds)."""
    then = "Set this machine's clock by NTP."
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    try:
        connection.request("HEAD", "/")
        said = connection.getresponse().getheader("Date")
        if said is None:
            raise ValueError
        skew = (datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds() - 0.5
    except (OSError, http.client.HTTPException, ValueError):
        return Check("clock", "warning", "the coordinator tells no time: its clock was not compared", then)
    finally:
        connection.close()
    words = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the coordinator's"
    if abs(skew) > SKEW_FAULT:
        return Check("clock", "fault", words, then)
    return Check("clock", "warning", words, then) if abs(skew) > SKEW_WARNING else Check("clock", "ok", words)


def _flwr() -> Check:
    found = installed()
    try:
        admitted(found)
    except EngineMissing as error:
        return Check("flwr", "fault", error.message, error.hint)
    return Check("flwr", "ok", f"flwr {found}")


def _isolated() -> Check:
    """Whether the answering child can give up its network here; tried in a process of its own."""
    code = "from fivefold.engines.flower.isolation import leave_network; print(leave_network())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        then = "Run the site on Linux (x86-64 or aarch64), where it needs no privilege for that."
        return Check("isolation", "fault", "the answering process cannot give up its network here", then)
    return Check("isolation", "ok", f"the answering process has no network ({done.stdout.strip()})")
