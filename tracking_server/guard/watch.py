"""Files that others replace by rename: looked at every second."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tracking_server.guard.loop import Loop

SECONDS = 1.0
Mark = tuple[int, int, int] | None


def mark_of(path: Path) -> Mark:
    """What changes when a file is replaced or written; None when it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a hot path: no Path.stat indirection per second and server
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Watch:
    """Calls a file's function when the file is another than last time (made, replaced, removed); the first time is when this is made."""

    def __init__(self, loop: Loop, calls: Mapping[Path, Callable[[], None]]) -> None:
        self._loop = loop
        self._calls = dict(calls)
        self._marks = {path: mark_of(path) for path in calls}
        self._loop.later(SECONDS, self._look)

    def replaced_at(self) -> dict[Path, int | None]:
        """The files that were taken over, each with its time (ns) of modification; None: it was not there."""
        return {path: mark and mark[1] for path, mark in self._marks.items()}

    def _look(self) -> None:
        self._loop.later(SECONDS, self._look)
        for path, call in self._calls.items():
            mark = mark_of(path)
            if mark != self._marks[path]:
                call()
                self._marks[path] = mark
