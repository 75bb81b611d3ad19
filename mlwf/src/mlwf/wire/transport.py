"""How a request reaches the service: one builder per address scheme, so that the client does not know which is used.

HTTP over a Unix socket needs thirty lines on top of requests; a package for it would be one more thing to install and to follow.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from mlwf.address import split_url
from mlwf.errors import WrongUseError
from mlwf.i18n import _

Builder = Callable[[str], tuple[requests.Session, str]]
LOOK_SECONDS, CHANGE_SECONDS = 5.0, 30.0
"""What is asked can be asked again; what is changed had better not, and on a busy host each password takes the service a second."""


class OneAnswer(requests.Session):
    """A session that goes to no address that an answer names.

    Asked not to go there, requests still looks where it would: it reads the whole of that answer, however long it is, and an address that
    cannot be read ends in an error that is none of its own.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        return None


def seconds_for(method: str, chosen: float | None) -> tuple[float, float]:
    """How long a request waits for its connection, and for its answer. `chosen`: by the caller, for both."""
    if chosen is not None:
        return chosen, chosen
    return LOOK_SECONDS, LOOK_SECONDS if method == "GET" else CHANGE_SECONDS


class _UnixConnection(urllib3.connection.HTTPConnection):
    """HTTP on a Unix socket. The socket is opened through its folder, since an AF_UNIX path holds 107 bytes only."""

    def __init__(self, path: Path, timeout: Any) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
            folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{self.path.name}")
            finally:
                os.close(folder)
        except OSError:
            connection.close()
            raise
        self.sock = connection


class _UnixPool(urllib3.HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", maxsize=2)
        self.path = path

    def _new_conn(self) -> Any:
        return _UnixConnection(self.path, self.timeout.connect_timeout)


class UnixAdapter(HTTPAdapter):
    """Sends every request of a session to one Unix socket."""

    def __init__(self, path: Path) -> None:
        self.pool = _UnixPool(path)
        super().__init__()

    def get_connection_with_tls_context(self, *_args: Any, **_options: Any) -> _UnixPool:
        return self.pool

    def close(self) -> None:
        self.pool.close()
        super().close()


def _unix(address: str) -> tuple[requests.Session, str]:
    parts = urlsplit(address)
    path = Path(parts.path)
    if parts.netloc or not path.is_absolute() or not path.name:
        raise WrongUseError(
            _("{address} is not an address of the service").format(address=address), cure=_("Write unix:///path/to/service.sock.")
        )
    session = OneAnswer()
    session.trust_env = False  # proxies and .netrc have no say over a local socket
    for prefix in list(session.adapters):
        session.mount(prefix, UnixAdapter(path))
    return session, "http://localhost"


def _https(address: str) -> tuple[requests.Session, str]:
    return OneAnswer(), address.rstrip("/")


SCHEMES: dict[str, Builder] = {"unix": _unix, "https": _https}


def open_session(address: str) -> tuple[requests.Session, str]:
    """A session and the URL before `/api/v1` for an address. Raises WrongUseError for an address that no scheme knows."""
    builder = SCHEMES.get(split_url(address).scheme)
    if builder is None:
        known = ", ".join(f"{scheme}://…" for scheme in SCHEMES)
        raise WrongUseError(
            _("{address} is not an address of the service").format(address=address),
            cure=_("Set MLWF_SERVICE to an address that begins with one of {known}.").format(known=known),
        )
    return builder(address)
