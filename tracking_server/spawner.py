"""The first process of MLflow's own container: starts MLflow when the guard asks, under this container's user id.

The guard connects to `spawn/spawn.sock` (SOCK_SEQPACKET, a text a message) for each MLflow that it wants, and is told at once
`database yes` or `database no`: whether the backend store's file is there. `start` comes with the descriptors of `launching.launch`;
`drain` and `kill` may follow, and `ended CODE` or `refused REASON` goes back, last. The end of the connection is the end of its
MLflow. Only the guard's user id is heard.

It is there for a server's whole life and does nothing, so it runs without `site` and without json, pathlib and typing: 2 MB less.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from contextlib import suppress

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from tracking_server.guard import child
from tracking_server.guard.launching import FILES, WORD_BYTES, launch
from tracking_server.guard.loop import READ, Loop

SOCKET = "spawn.sock"
_PEER = struct.Struct("3i")  # the kernel's struct ucred: pid, uid, gid


class Spawner:
    """`guard_uid`: whose connections are heard."""

    def __init__(self, box: str, guard_uid: int) -> None:
        self._box = box
        self._guard_uid = guard_uid
        self._loop = Loop()
        self._pid = 0
        self._owner: _Line | None = None
        self._ending = False
        self._socket = _listen()
        self._loop.watch(self._socket, READ, self._accept)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._stop)

    def run(self) -> None:
        """Until a signal, and the end of the MLflow that runs then."""
        self._loop.run()

    def _accept(self) -> None:
        try:
            line, _ = self._socket.accept()
        except OSError:  # gone again
            return
        _pid, uid, _gid = _PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != self._guard_uid:
            sys.stderr.write(f"spawner: user id {uid} is not the guard's: not heard\n")
            line.close()
            return
        there = os.path.exists(self._box + "/data/mlflow.db")
        _Line(self._loop, line, self).say(b"database yes" if there else b"database no")

    def start(self, owner: _Line, files: list[int]) -> None:
        """Start MLflow for this connection, unless another one's still runs."""
        if self._pid or self._ending:
            owner.say(b"refused the one before has not ended yet")
            return
        try:
            self._pid = launch(files, f"{self._box}/tmp")
        except OSError as error:
            owner.say(f"refused {error.strerror}".encode())
            return
        self._owner = owner
        self._loop.on_exit(self._pid, self._ended)

    def end(self, owner: _Line, *, gently: bool) -> None:
        """The MLflow of this connection, if it has one."""
        if owner is not self._owner:
            return
        if gently:
            child.send(self._pid, signal.SIGTERM)
        else:
            child.kill_group(self._pid)

    def _ended(self, code: int) -> None:
        owner, self._owner, self._pid = self._owner, None, 0
        if owner is not None:
            owner.say(b"ended %d" % code)
        if self._ending:
            self._loop.stop()

    def _stop(self) -> None:
        self._ending = True
        if self._pid:
            child.send(self._pid, signal.SIGTERM)
        else:
            self._loop.stop()


class _Line:
    """One connection of the guard's."""

    def __init__(self, loop: Loop, line: socket.socket, spawner: Spawner) -> None:
        self._loop = loop
        self._line = line
        self._spawner = spawner
        line.setblocking(False)
        loop.watch(line, READ, self._read)

    def say(self, word: bytes) -> None:
        """Not heard any more: no matter."""
        with suppress(OSError):
            self._line.send(word)

    def _read(self) -> None:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._line, WORD_BYTES, FILES)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        try:
            if data:
                self._heard(data, descriptors)
            else:
                self._spawner.end(self, gently=False)
                self._loop.unwatch(self._line)
                self._line.close()
        finally:
            for each in descriptors:
                os.close(each)

    def _heard(self, word: bytes, descriptors: list[int]) -> None:
        if word == b"start" and len(descriptors) == FILES:
            self._spawner.start(self, descriptors)
        elif word in (b"drain", b"kill"):
            self._spawner.end(self, gently=word == b"drain")
        else:
            self.say(b"refused guard and MLflow are of different images")


def _listen() -> socket.socket:
    """In the directory where we are, since socket paths are short. Everybody may knock; who is heard is decided by user id."""
    with suppress(FileNotFoundError):
        os.unlink(SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0)
    listener.bind(SOCKET)
    os.umask(before)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def main(arguments: list[str]) -> int:
    """`UID_OF_THE_GUARD BOX_DIRECTORY`; returns the exit status."""
    if len(arguments) != 2 or not arguments[0].isdigit() or not arguments[1].startswith("/"):
        sys.stderr.write("usage: spawner.py UID_OF_THE_GUARD BOX_DIRECTORY\n")
        return 2
    box = arguments[1]
    os.umask(0o077)
    try:
        os.chdir(box + "/spawn")
        Spawner(box, int(arguments[0])).run()
    except OSError as error:
        sys.stderr.write(f"spawner: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
