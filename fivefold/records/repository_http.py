"""HTTP to a repository, and to no other host: the token never leaves for another address, nor enters an error or a log.

Reading is repeated after a cut line or a busy server (429 with Retry-After, 502 to 504); what changes something at the server
is repeated only where the caller says that it may be.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from fivefold.errors import DepositInterrupted, DepositRefused

ATTEMPTS = 5
LONGEST_WAIT = 120.0
SECONDS = 60.0
MAX_ANSWER = 16 << 20
BUSY = (429, 502, 503, 504)


class Body(Protocol):
    """Bytes to be sent."""

    def read(self, amount: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Server:
    """A repository's API. `base` ends without a slash; `sleep` waits some seconds."""

    base: str
    token: str = field(repr=False)
    sleep: Callable[[float], None]
    opener: urllib.request.OpenerDirector = field(
        default_factory=lambda: urllib.request.build_opener(_NoRedirect()), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise DepositRefused(f"{self.base} is not an address of https", help="A token travels encrypted or not at all.")
        if not self.token or not self.token.isprintable() or not self.token.isascii():
            raise DepositRefused("there is no token for the repository", help=TOKEN_HELP)


TOKEN_HELP = "Put it into FIVEFOLD_ZENODO_TOKEN, or into your keyring: `keyring set fivefold-zenodo token`."


def ask(
    server: Server,
    verb: str,
    address: str,
    *,
    value: Any = None,
    body: Callable[[], Body] | None = None,
    size: int = 0,
    again: bool = True,
) -> Any:
    """The JSON that the server answers (None for an empty answer). `address` is absolute, or a path under the base.

    `body` opens the bytes to be sent, anew for each attempt. `again`: repeat after a cut line (for what may be done twice).

    Raises `DepositRefused` for a refusal, `DepositInterrupted` where the server cannot be reached or stays busy.
    """
    target = address if "://" in address else server.base + address
    if urlsplit(target)[:2] != urlsplit(server.base)[:2]:
        raise DepositRefused("the repository named an address at another host, and nothing was sent there")
    wait = 1.0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _once(server, verb, target, value, body, size)
        except _Busy as busy:
            reason, wait = f"the repository is busy (HTTP {busy.status})", busy.after or wait
            if not again and busy.status != 429:  # it may have been done before the answer was lost
                raise DepositInterrupted(reason) from None
        except (OSError, http.client.HTTPException) as error:
            reason = f"the line to the repository was cut ({type(error).__name__})"
            if not again:
                raise DepositInterrupted(reason) from None
        if attempt == ATTEMPTS or wait > LONGEST_WAIT:
            break
        server.sleep(wait)
        wait *= 2
    raise DepositInterrupted(f"{reason}, {attempt} times")


class _Busy(Exception):
    def __init__(self, status: int, after: float) -> None:
        self.status, self.after = status, after


def _once(server: Server, verb: str, target: str, value: Any, body: Callable[[], Body] | None, size: int) -> Any:
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/json", "User-Agent": "fivefold"}
    data: Any = None
    if body is not None:
        data, headers = body(), headers | {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    elif value is not None:
        data, headers = json.dumps(value).encode(), headers | {"Content-Type": "application/json"}
    request = urllib.request.Request(target, data=data, headers=headers, method=verb)
    try:
        with server.opener.open(request, timeout=SECONDS) as answer:
            return _plain(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(MAX_ANSWER)
            if error.code in BUSY:
                raise _Busy(error.code, _seconds(error.headers.get("Retry-After"))) from None
            raise refusal(error.code, _plain(said, broken={})) from None
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from None
    finally:
        if body is not None:
            data.close()


def refusal(status: int, said: Any) -> DepositRefused:
    """A refusal in a sentence with its next step."""
    told = said if isinstance(said, Mapping) else {}
    fields = [f"{e.get('field')}: {e.get('message')}" for e in told.get("errors") or () if isinstance(e, Mapping)]
    words = "; ".join(fields)[:500] or str(told.get("message", ""))[:300]
    sentence, hint = {
        400: ("the repository does not accept the record", "Correct what it names in the study file, and pack the run again."),
        401: ("the repository does not accept the token", TOKEN_HELP),
        403: (
            "the token may not do this",
            "It needs the scopes deposit:write and deposit:actions, and the record has to be yours.",
        ),
        404: ("the repository has no such record", "Look at its number, and whether it is on the sandbox."),
        409: ("the record is in a state that does not permit this", "Look at it on the repository's page."),
    }.get(status, (f"the repository refused (HTTP {status})", "Try again later, or look at the record on its page."))
    return DepositRefused(sentence + (f": {words}" if words else ""), help=hint, rule=str(status))


def _plain(data: bytes, **broken: Any) -> Any:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError:
        if "broken" in broken:
            return broken["broken"]
        raise http.client.HTTPException("not JSON") from None


def _seconds(text: str | None) -> float:
    """Retry-After in seconds; 0 where it is missing or a date."""
    return float(text) if text is not None and text.strip().isdigit() else 0.0
