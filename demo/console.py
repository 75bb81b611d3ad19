"""The console as the demo serves it: for the demo's own user alone.

Behind a portal the portal has proved who asks. On loopback nobody has, and everybody with an account on the machine can connect; but the
kernel knows whose socket the other end is.
"""

import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ood_app.passenger_wsgi import application as console

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_CONNECTIONS = Path("/proc/net/tcp")
_ESTABLISHED = "01"
REFUSAL = b"This demo belongs to another user of this machine. Start your own with: make demo\n"


def owner_of(client: tuple[str, int], server: tuple[str, int], table: str) -> int | None:
    """The uid that holds the client's end of a connection on this machine, from the kernel's table; None when no such connection stands.

    Only established ones count: of those that are being closed the table no longer says the owner.
    """
    wanted = [_written(client), _written(server), _ESTABLISHED]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1:4] == wanted:
            return int(fields[7])
    return None


def _written(address: tuple[str, int]) -> str:
    """An IPv4 address and port as the kernel's table writes them: the address as a number of this machine's byte order."""
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


def for_own_user(app: "WSGIApplication") -> "WSGIApplication":
    """The same application, answering 403 to everybody but the user who runs it, and root."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        connection: socket.socket = environ["gunicorn.socket"]
        if owner_of(connection.getpeername(), connection.getsockname(), _CONNECTIONS.read_text()) in {os.getuid(), 0}:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(REFUSAL)))])
        return [REFUSAL]

    return guarded


application = for_own_user(console)
