"""GET with bounded patience: what is worth another try, how long to wait, and what a refusal means."""

import contextlib
import json
import random
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
import urllib3

from mlwf.i18n import _
from mlwf.wire.system_error import address_fault, system_error

ATTEMPTS = 6
# Small enough that a chunk is still in the processor's cache when it is written: a megabyte cost the kernel twice the time.
CHUNK = 256 << 10
CONNECT_SECONDS = 10.0
# A sleeping server keeps the first request until it is awake; a busy node can take minutes for that.
READ_SECONDS = 180.0
NO_SUCH_RANGE = 416
"""To a question for the first byte: there is none, the file is empty."""
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
NO_ROOM = 507
"""A tracking server's, which spools what it hands on. With a time to come again it fits later, without one never."""
T = TypeVar("T")


class TransientError(Exception):
    """Worth another try. `reached` is false when no connection was made at all; `wait`: seconds that the server asked for; `crowded`: there
    is no room for it beside what is on its way.
    """

    def __init__(self, why: str, *, reached: bool = True, wait: float | None = None, crowded: bool = False) -> None:
        super().__init__(why)
        self.reached = reached
        self.wait = wait
        self.crowded = crowded


class RefusedError(Exception):
    """Another try would give the same answer. `status` is 0 where there was none; `reason`: a tracking server's own word for a 401."""

    def __init__(self, why: str, *, status: int = 0, body: Any = None, location: str = "", reason: str = "") -> None:
        super().__init__(why)
        self.reason = reason
        self.status = status
        self.body = body
        self.location = location


@dataclass(frozen=True)
class Request:
    """`read_seconds`: how long the answer, and each part of it, is waited for, where that is not as always."""

    url: str
    headers: Mapping[str, str]
    params: Mapping[str, str] | None = None
    read_seconds: float | None = None


def pause_before(attempt: int, error: TransientError) -> float:
    """Seconds to wait before try number `attempt` (1 is the second try)."""
    backoff = min(0.4 * 2.0**attempt, 10.0) * random.uniform(0.75, 1.25)  # noqa: S311  # spreads retries, protects nothing
    return min(max(backoff, error.wait or 0.0), 60.0)


def retried(action: Callable[[], T], wait: Callable[[float], object], *, attempts: int = ATTEMPTS) -> T:
    """`action`, again while it is transient. Raises the last TransientError, or at once when nobody was there at the first try."""
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except TransientError as error:
            if attempt == attempts or (attempt == 1 and not error.reached):
                raise
            wait(pause_before(attempt, error))
    raise AssertionError("unreachable: the last attempt returns or raises")


def byte_count(said: str) -> int | None:
    """A length as a header gives it; None for what is none: "5, 5" where it was sent twice, other scripts' digits, thousands of them."""
    return int(said) if re.fullmatch("[0-9]{1,18}", said) else None


@contextlib.contextmanager
def opened(session: requests.Session, request: Request) -> Iterator[requests.Response]:
    """A response with status 200 or 206, its body unread. Raises TransientError or RefusedError."""
    with network_errors():
        response = session.get(
            request.url,
            headers=dict(request.headers),
            params=request.params,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, request.read_seconds or READ_SECONDS),
        )
    try:
        _check(response)
        yield response
    finally:
        response.close()


def body(response: requests.Response) -> Iterator[bytes]:
    """The body as it travels, in chunks. Raises TransientError when it breaks off."""
    while True:
        with network_errors():
            chunk = response.raw.read(CHUNK, decode_content=False)
        if not chunk:
            return
        yield chunk


def whole(response: requests.Response, most: int) -> bytes:
    """All of the body. Raises TransientError when it breaks off, and RefusedError where it is longer than `most` bytes."""
    held = bytearray()
    for chunk in body(response):
        held += chunk
        if len(held) > most:
            raise RefusedError(_("the answer is larger than {size} MB").format(size=most >> 20))
    return bytes(held)


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Turns what requests, urllib3 and the system raise into TransientError or RefusedError. Put only network calls inside."""
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as error:
        raise RefusedError(address_fault(error)) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        cause = system_error(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise RefusedError(cause.verify_message or str(cause)) from error
        unreached = isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(cause, (ConnectionRefusedError, socket.gaierror))
        raise TransientError(_words(error, cause), reached=not unreached) from error


def _words(error: Exception, cause: OSError | None) -> str:
    if cause is not None and cause.strerror:
        return cause.strerror
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "timed out"
    if cause is not None and isinstance(error, requests.exceptions.ProxyError):
        return str(cause)  # what the proxy answers instead of a way to the server
    return type(error).__name__


def _check(response: requests.Response) -> None:
    status, headers, wait = response.status_code, response.headers, _retry_after(response)
    if status in {200, 206}:
        return
    crowded = status == NO_ROOM and wait is not None
    transient = status in TRANSIENT or crowded
    try:
        with network_errors():
            text = response.raw.read(65536, decode_content=True)
    except (TransientError, RefusedError):
        if not transient:
            raise
        text = b""  # its words alone are lost: it is the answer that it was
    why = f"HTTP {status}{_message(text)}"
    if transient:
        raise TransientError(why, wait=wait, crowded=crowded)
    raise RefusedError(why, status=status, body=text, location=headers.get("Location", ""), reason=headers.get("X-Aihub-Why", ""))


def _message(text: bytes) -> str:
    """What a tracking server's error document says, after a colon; nothing of other documents."""
    try:
        said = json.loads(text).get("message")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f": {' '.join(said.split())[:300]}" if isinstance(said, str) and said.isprintable() else ""


def _retry_after(response: requests.Response) -> float | None:
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
