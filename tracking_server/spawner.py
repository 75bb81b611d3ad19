"""The first process of MLflow's own container: starts MLflow when the guard asks, under this container's user id.

The guard connects to `spawn/spawn.sock` (SOCK_SEQPACKET, a JSON object a message) for each MLflow that it wants, and is told at once
`{"database": true or false}`: whether the backend store's file is there. `{"start": "mlflow"}` comes with four descriptors, as `Files`
names them; then `{"signal": "drain"}` and `{"signal": "kill"}` may follow, and `{"ended": CODE}` or `{"refused": REASON}` goes back, last.
The end of the connection is the end of its MLflow. Only the guard's user id is heard.

It is there for a server's whole life and does nothing, so it is started without `site` and imports little.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tracking_server import layout
from tracking_server.guard import child
from tracking_server.guard.loop import READ, Loop
from tracking_server.guard.starters import MESSAGE_BYTES, Files, launcher

_PEER = struct.Struct("3i")  # the kernel's struct ucred: pid, uid, gid


class Spawner:
    """`guard_uid`: whose connections are heard."""

    def __init__(self, box: layout.Box, guard_uid: int) -> None:
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
        _Line(self._loop, line, self).say({"database": self._box.database.exists()})

    def start(self, owner: _Line, files: Files) -> None:
        """Start MLflow for this connection, unless another one's still runs."""
        if self._pid or self._ending:
            owner.say({"refused": "the one before has not ended yet"})
            return
        try:
            self._pid = launcher(files, str(self._box.tmp))
        except OSError as error:
            owner.say({"refused": str(error.strerror)})
            return
        self._owner = owner
        self._loop.on_exit(self._pid, self._ended)

    def signal(self, owner: _Line, name: object) -> None:
        """Of the connection whose MLflow runs."""
        if owner is not self._owner:
            return
        if name == "drain":
            child.send(self._pid, signal.SIGTERM)
        else:
            child.kill_group(self._pid)

    def _ended(self, code: int) -> None:
        owner, self._owner, self._pid = self._owner, None, 0
        if owner is not None:
            owner.say({"ended": code})
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

    def say(self, word: dict[str, object]) -> None:
        """Not heard any more: no matter."""
        with suppress(OSError):
            self._line.send(json.dumps(word).encode())

    def _read(self) -> None:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._line, MESSAGE_BYTES, len(Files._fields))
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        try:
            if data:
                self._heard(json.loads(data), descriptors)
            else:
                self._spawner.signal(self, "kill")
                self._loop.unwatch(self._line)
                self._line.close()
        finally:
            for each in descriptors:
                os.close(each)

    def _heard(self, word: dict[str, object], descriptors: list[int]) -> None:
        if "start" in word and len(descriptors) == len(Files._fields):
            self._spawner.start(self, Files(*descriptors))
        elif "signal" in word:
            self._spawner.signal(self, word["signal"])
        else:
            self.say({"refused": "not understood: guard and MLflow are of different images"})


def _listen() -> socket.socket:
    """In the directory where we are, since socket paths are short. Everybody may knock; who is heard is decided by user id."""
    Path(layout.SPAWN_SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(layout.SPAWN_SOCKET)
    Path(layout.SPAWN_SOCKET).chmod(0o666)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def main(arguments: list[str]) -> int:
    """`UID_OF_THE_GUARD BOX_DIRECTORY`; returns the exit status."""
    if len(arguments) != 2 or not arguments[0].isdigit():
        sys.stderr.write("usage: spawner.py UID_OF_THE_GUARD BOX_DIRECTORY\n")
        return 2
    box = layout.Box(Path(arguments[1]).absolute())
    os.umask(0o077)
    try:
        os.chdir(box.spawn)
        Spawner(box, int(arguments[0])).run()
    except OSError as error:
        sys.stderr.write(f"spawner: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
