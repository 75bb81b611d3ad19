"""Files that others replace by rename: looked at every second, and when somebody asks what is in force."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
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
    """Calls a file's function when the file is another than last time (made, replaced, removed); the first time is when this is made.

    A function returns why it could not take the file over, which is logged once, and is called again at the next look; else None.
    """

    def __init__(self, loop: Loop, calls: Mapping[Path, Callable[[], str | None]], *, log: Callable[[str], None]) -> None:
        self._loop = loop
        self._calls = dict(calls)
        self._log = log
        self._marks = {path: mark_of(path) for path in calls}
        self._refused: dict[Path, Mark] = {}
        self._loop.later(SECONDS, self._every_second)

    def take_over(self, paths: Iterable[Path]) -> None:
        """Call the functions of these files now, changed or not."""
        for path in paths:
            mark, self._marks[path] = mark_of(path), None
            self._take_over(path, mark)

    def replaced_at(self) -> dict[Path, int | None]:
        """The files that were taken over, each with its time (ns) of modification; None: it was not there, or could not be."""
        return {path: mark and mark[1] for path, mark in self._marks.items()}

    def _every_second(self) -> None:
        self._loop.later(SECONDS, self._every_second)
        self.look(again=True)

    def look(self, *, again: bool = False) -> None:
        """Take over now what was replaced since the last look. `again`: also try once more what was refused, which may cost much."""
        for path in self._calls:
            mark = mark_of(path)
            known = self._refused.get(path, self._marks[path])
            if mark != known or (again and path in self._refused):
                self._take_over(path, mark)

    def _take_over(self, path: Path, mark: Mark) -> None:
        """One that is refused is not said to be taken over: who wrote it waits for that."""
        why = self._calls[path]()
        if why is None:
            self._marks[path] = mark
            self._refused.pop(path, None)
            return
        if path not in self._refused or self._refused[path] != mark:
            self._log(why)
        self._refused[path] = mark
