"""What transfers under way have said that they will write, of all processes together: workers and jobs are below one bound.

Each process counts in a place of its own in shared memory, so that what one that died had promised counts no more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PLACE = struct.Struct("qq")  # process id, bytes
_PLACES = 4096 // _PLACE.size


class Promises:
    """To be made before workers and jobs are forked. A process is at home in the place that has its id."""

    def __init__(self) -> None:
        self._file = os.memfd_create("promises")
        os.ftruncate(self._file, _PLACE.size * _PLACES)
        self._memory = mmap.mmap(self._file, _PLACE.size * _PLACES)
        self._own = (0, 0)
        self._thread = threading.RLock()  # uploads are on the event loop, downloads on other threads

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else promises meanwhile. A process that dies in it lets go."""
        with self._thread:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def add(self, size: int) -> None:
        """So much more, or less, is promised by this process; its first promise is made `alone`."""
        with self._thread:
            place = self._place()
            _PLACE.pack_into(self._memory, place * _PLACE.size, os.getpid(), self._read(place)[1] + size)

    def total(self) -> int:
        """Of all processes that live."""
        return sum(size for owner, size in map(self._read, range(_PLACES)) if size and _lives(owner))

    def _place(self) -> int:
        pid = os.getpid()
        if self._own[0] != pid:
            place = next(each for each in range(_PLACES) if self._read(each)[0] in (0, pid) or not _lives(self._read(each)[0]))
            _PLACE.pack_into(self._memory, place * _PLACE.size, pid, 0)
            self._own = (pid, place)
        return self._own[1]

    def _read(self, place: int) -> tuple[int, int]:
        owner, size = _PLACE.unpack_from(self._memory, place * _PLACE.size)
        return owner, size


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # gone, or its id is another account's by now
        return False
    return True
