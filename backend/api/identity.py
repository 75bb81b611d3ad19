"""Who calls, proved by the listener. A listener has exactly one scheme; nothing that a request says of its sender is looked at."""

from __future__ import annotations

import hmac
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from mlwf.wire.munge_payload import SCHEME as MUNGE
from mlwf.wire.munge_payload import head_of, payload

from backend.domain import Caller
from backend.errors import ServiceError
from backend.munge import Unmunge
from backend.ports import Directory
from backend.wishes.api_tokens import ApiTokens

SOCKET_KEY: Final = "gunicorn.socket"
_CREDENTIALS: Final = struct.Struct("iII")
Body = Callable[[], bytes]
"""Reads the request's body, whole and bounded."""


class Identity(Protocol):
    """One scheme."""

    scheme: str

    def caller(self, environ: Mapping[str, Any], body: Body, directory: Directory) -> Caller:
        """Who sent the request of this WSGI environment. ``body`` is read only for somebody who is known already."""


class PeerCredentials:
    """The Unix socket's scheme: the kernel tells who opened the connection (``SO_PEERCRED``)."""

    scheme = "peercred"

    def caller(self, environ: Mapping[str, Any], body: Body, directory: Directory) -> Caller:  # noqa: ARG002 (the others need it)
        """From the connection's own socket. ``RuntimeError`` where there is none or it is no Unix socket: then the service is set up
        wrongly, and nobody gets in.
        """
        return directory.caller(uid=peer_uid(environ.get(SOCKET_KEY)))


class MungeCredentials:
    """A credential that the caller's host made for this very request, sent to ``url``. A second use of it is refused."""

    scheme = "munge"

    def __init__(self, *, url: str, unmunge: Unmunge) -> None:
        self._url = url.rstrip("/")
        self._unmunge = unmunge

    def caller(self, environ: Mapping[str, Any], body: Body, directory: Directory) -> Caller:
        """Errors: ``credential_…``, ``munge_failed``, those of the directory."""
        found = self._unmunge.decode(_authorization(environ, MUNGE, "credential_missing"))
        request = {"method": str(environ["REQUEST_METHOD"]), "service": self._url, "target": str(environ["RAW_URI"])}
        if not hmac.compare_digest(head_of(found.payload).encode(), head_of(payload(**request, body=b"")).encode()):
            raise ServiceError("credential_mismatch", what="method, address or path", url=self._url)
        caller = directory.caller(uid=found.uid)
        if not hmac.compare_digest(found.payload.encode(), payload(**request, body=body()).encode()):
            raise ServiceError("credential_mismatch", what="body", url=self._url)
        return caller


class TokenCredentials:
    """A token that an admin issued (``aihub tokens create``)."""

    scheme = "token"

    def __init__(self, tokens: ApiTokens) -> None:
        self._tokens = tokens

    def caller(self, environ: Mapping[str, Any], body: Body, directory: Directory) -> Caller:  # noqa: ARG002 (the others need it)
        """Errors: ``token_…``, those of the directory. A uid that went to somebody else since has no use of the token."""
        row = self._tokens.holder(_authorization(environ, "Bearer", "token_missing"))
        caller = directory.caller(uid=row.uid)
        if caller.user != row.user:
            raise ServiceError("token_unknown")
        return caller


def _authorization(environ: Mapping[str, Any], scheme: str, missing: str) -> str:
    word, _, value = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if word.lower() != scheme.lower() or not value.strip():
        raise ServiceError(missing)
    return value.strip()


def peer_uid(connection: socket.socket | None) -> int:
    """The uid at the other end of a Unix connection, as it was when it was opened. Error: ``RuntimeError``."""
    if connection is None or connection.family != socket.AF_UNIX:
        raise RuntimeError("peer credentials are the scheme of a Unix socket, and this connection is none")
    _pid, uid, _gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
