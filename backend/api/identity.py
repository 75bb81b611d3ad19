"""Who calls, proved by the listener. A listener has exactly one scheme; nothing that a request says of its sender is looked at."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, Protocol

SOCKET_KEY: Final = "gunicorn.socket"
_CREDENTIALS: Final = struct.Struct("iII")


class Identity(Protocol):
    """One scheme."""

    scheme: str

    def uid(self, environ: Mapping[str, Any]) -> int:
        """The uid of who sent the request of this WSGI environment."""


class PeerCredentials:
    """The Unix socket's scheme: the kernel tells who opened the connection (``SO_PEERCRED``)."""

    scheme = "peercred"

    def uid(self, environ: Mapping[str, Any]) -> int:
        """From the connection's own socket. ``RuntimeError`` where there is none or it is no Unix socket: then the service is set up
        wrongly, and nobody gets in.
        """
        return peer_uid(environ.get(SOCKET_KEY))


def peer_uid(connection: socket.socket | None) -> int:
    """The uid at the other end of a Unix connection, as it was when it was opened. Error: ``RuntimeError``."""
    if connection is None or connection.family != socket.AF_UNIX:
        raise RuntimeError("peer credentials are the scheme of a Unix socket, and this connection is none")
    _pid, uid, _gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
