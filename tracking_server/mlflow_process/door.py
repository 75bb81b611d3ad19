"""From a job into the MLflow that serves: connections without a port or a file, which nobody else could find.

MLflow's judges ask a language model through the server's own AI gateway, over HTTP. The box's MLflow listens where only nginx comes, and
nginx asks for a password, which a job has not. So a job makes a pair of sockets and hands one of them to whichever worker takes it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from tracking_server.settings import Settings

_ONE = b"1"


class Door:
    """To be made before workers and jobs are forked."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inside.setblocking(False)

    def fileno(self) -> int:
        """Readable when somebody stands before it."""
        return self._inside.fileno()

    def enter(self) -> socket.socket:
        """A connection to one of the workers, as soon as it looks."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._outside, [_ONE], [theirs.fileno()])
        return ours

    def newcomers(self) -> Iterator[socket.socket]:
        """Whoever stands before it now; another worker may have let them in already."""
        while True:
            try:
                _word, descriptors, _flags, _address = socket.recv_fds(self._inside, len(_ONE), 1)
            except BlockingIOError:
                return
            for descriptor in descriptors:
                newcomer = socket.socket(fileno=descriptor)
                newcomer.setblocking(False)
                yield newcomer


def lead_through(door: Door, settings: Settings) -> str:
    """In a job's process: who connects to the address that is answered comes in by the door. All other addresses are as ever."""
    from urllib3.connection import HTTPConnection  # it is in the box's environment only

    # A name that MLflow's Host check takes.
    address = f"http://{settings.public_hosts[0]}/mlflow"
    own = (urlsplit(address).hostname, urlsplit(address).port or 80)
    usual = HTTPConnection._new_conn  # noqa: SLF001  # where urllib3 lets subclasses make their connection

    def connect(self: HTTPConnection) -> socket.socket:
        return door.enter() if (self.host, self.port) == own else usual(self)

    HTTPConnection._new_conn = connect  # type: ignore[method-assign]  # noqa: SLF001  # this process is one job's
    return address
