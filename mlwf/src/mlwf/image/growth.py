"""How much a program that tells nothing has written so far."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

# A measuring is a walk: never more often than each second, nor for more than a twentieth of the time.
LEAST_SECONDS, SHARE = 1.0, 20


class Growth:
    """Bytes in what is new in some folders since this was made. Other jobs' files in them count too: it is for the eye.

    One folder may lie in another, and need not be there yet.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._above = {str(one) for each in folders for one in (each, *each.parents)}
        self._before = {each.path for each in self._children()}
        self._size = 0
        self._next = 0.0

    def __call__(self) -> int:
        """The size now, or as it was a moment ago; never less than was told before."""
        started = time.monotonic()
        if started >= self._next:
            new = [each for each in self._children() if each.path not in self._before | self._above]
            self._size = max(self._size, sum(map(_size, new)))
            self._next = time.monotonic() + max(LEAST_SECONDS, SHARE * (time.monotonic() - started))
        return self._size

    def _children(self) -> Iterator["os.DirEntry[str]"]:
        for folder in self._folders:
            try:
                with os.scandir(folder) as found:
                    yield from found
            except OSError:  # it is not made yet, or was taken away
                continue


def _size(entry: "os.DirEntry[str]") -> int:
    """Of a file, or of all files below a folder; what vanishes meanwhile counts nothing."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
        with os.scandir(entry.path) as found:
            return sum(map(_size, found))
    except OSError:
        return 0
