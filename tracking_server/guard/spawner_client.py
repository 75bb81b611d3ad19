"""The guard's side of the spawner: one connection for each MLflow that it asks for. See tracking_server/spawner.py for the words."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from tracking_server.guard import child
from tracking_server.guard.launching import WORD_BYTES
from tracking_server.guard.loop import READ, Loop
from tracking_server.guard.starters import Ending, Files, Running

DIAL_SECONDS = 30.0
"""So long the other container may take to be there: both are started at once, in any order."""
_BETWEEN_DIALS = 0.2
_KILL_SECONDS = 5.0
_CODE = re.compile(r"-?[0-9]{1,3}")
_GONE = "the container of MLflow does not answer; it starts again by itself, or its runtime's log has more"


class SpawnerStarter:
    """MLflow by the spawner that listens at `place`. Whatever it says is taken for a stranger's word: it can be wrong, never harmful."""

    def __init__(self, loop: Loop, place: str) -> None:
        self._loop = loop
        self._place = place

    def start(self, files: Files, ended: Callable[[Ending], None]) -> Running:
        """See Starter."""
        return _Spawned(self._loop, self._place, files, ended)

    def look(self, known: Callable[[bool], None]) -> None:
        """See Starter. Not known: asleep until somebody comes."""
        _Look(self._loop, self._place, known)


class _Line:
    """A connection that is tried until it is there; then its messages, and its end once."""

    def __init__(self, loop: Loop, place: str) -> None:
        self._loop = loop
        self._place = place
        self._deadline = time.monotonic() + DIAL_SECONDS
        self._socket: socket.socket | None = None
        self._over = False
        # Not now: who asks is told later, in every case.
        self._next = loop.later(0, self._dial)

    def connected(self, line: socket.socket) -> None:
        """It is there."""

    def heard(self, word: str, rest: str) -> None:
        """A message came: its first word, and the others."""

    def lost(self) -> None:
        """It ended, or never came."""

    def _dial(self) -> None:
        if self._over:
            return
        try:
            line = _connected(self._place)
        except OSError:
            if time.monotonic() > self._deadline:
                self.hang_up()
            else:
                self._next = self._loop.later(_BETWEEN_DIALS, self._dial)
            return
        self._socket = line
        self._loop.watch(line, READ, self._read)
        self.connected(line)

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(WORD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            word, _, rest = data.decode(errors="replace").partition(" ")
            self.heard(word, rest)
        else:
            self.hang_up()

    def say(self, word: bytes) -> None:
        """Lost where the line is: that will be heard by itself."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(word)

    def hang_up(self) -> None:
        """The other side then ends what it runs for us."""
        if self._over:
            return
        self._over = True
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None
        self.lost()


def _connected(place: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.setblocking(False)
    try:
        line.connect(place)
    except OSError:
        line.close()
        raise
    return line


class _Look(_Line):
    def __init__(self, loop: Loop, place: str, known: Callable[[bool], None]) -> None:
        self._known = known
        super().__init__(loop, place)

    def heard(self, word: str, rest: str) -> None:
        if word == "database":
            self._known(rest == "yes")
        self.hang_up()


class _Spawned(_Line):
    """One MLflow of the spawner's."""

    def __init__(self, loop: Loop, place: str, files: Files, ended: Callable[[Ending], None]) -> None:
        self._ended = ended
        # The caller closes its own; these wait for the connection.
        self._files = child.duplicates(files)
        self._ending = Ending(1, _GONE)
        super().__init__(loop, place)

    def connected(self, line: socket.socket) -> None:
        try:
            socket.send_fds(line, [b"start"], self._files)
        except OSError:
            self.hang_up()
            return
        self._close_files()

    def heard(self, word: str, rest: str) -> None:
        if word == "database":  # it hears us; without more it was killed
            self._ending = Ending(-signal.SIGKILL)
            return
        if word == "ended" and _CODE.fullmatch(rest):
            self._ending = Ending(int(rest))
        elif word == "refused":
            self._ending = Ending(1, f"MLflow cannot be started ({' '.join(rest.split())})")
        else:
            return
        self.hang_up()

    def lost(self) -> None:
        self._close_files()
        self._ended(self._ending)

    def _close_files(self) -> None:
        for each in self._files:
            os.close(each)
        self._files = []

    def drain(self) -> None:
        """See Running. Before the line is there nothing runs: the start that waits would still have the plan from before."""
        if self._socket is not None:
            self.say(b"drain")
            return
        self._ending = Ending(0)
        self._next.cancel()
        self._loop.later(0, self.hang_up)

    def kill(self) -> None:
        """See Running. Who does not hear it any more hears the end of the line, which means the same."""
        self.say(b"kill")
        self._loop.later(_KILL_SECONDS if self._socket is not None else 0, self.hang_up)
