"""A kick wakes the reconciler at once. It says nothing but "look": what is to be done stands in the registry."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BURST = 65536


class Kick:
    """A Unix datagram socket at ``path``. Anybody may ``send``; one process, the reconciler, may ``wait``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._receiver: socket.socket | None = None

    def send(self) -> None:
        """Wake the reconciler. Returns at once and never fails: when nobody listens, the reconciler looks by itself when it starts."""
        try:
            with _short_name(self._path) as name, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(b"", name)
        except OSError:
            # Nobody there, or so many kicks wait that this one adds nothing. The reconciler's timer is the fallback for all else.
            return

    def listen(self) -> None:
        """Take the socket over (a former owner's is replaced). Kicks sent from now on are not lost. Errors: ``OSError``."""
        if self._receiver is not None:
            return
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            receiver.setblocking(False)
            self._path.unlink(missing_ok=True)
            with _short_name(self._path) as name:
                receiver.bind(name)
            self._path.chmod(0o600)
        except OSError:
            receiver.close()
            raise
        self._receiver = receiver

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; True when there was a kick. Many kicks meanwhile are one."""
        self.listen()
        receiver = self._receiver
        if receiver is None or not select.select([receiver], [], [], max(0.0, timeout))[0]:
            return False
        try:
            for _ in range(_BURST):
                receiver.recv(1)
        except BlockingIOError:
            pass
        return True

    def close(self) -> None:
        """Stop listening."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None


@contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into the 107 bytes that such a socket's name may have, wherever the state lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
