"""Who starts MLflow's process for the guard: the guard itself, or the spawner of another container, under another user id.

Both give it the same descriptors: the plan as standard input, the log, the listening socket and the pipe for its words. Both kill it when
the guard is gone, however that ended.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from tracking_server.guard import child
from tracking_server.guard.launching import launch
from tracking_server.guard.loop import Loop


class Files(NamedTuple):
    """Descriptors of the guard's own, which stay its to close; in the order of `launching.launch`."""

    plan: int
    output: int
    listener: int
    status: int


class Ending(NamedTuple):
    """`code`: the exit code (negative: the signal's number). `reason`: why it never ran, as one sentence without paths."""

    code: int
    reason: str | None = None


class Running(Protocol):
    def drain(self) -> None:
        """Ask it to end when those who are here have been served."""

    def kill(self) -> None:
        """End it and what it started, at once."""


class Starter(Protocol):
    def start(self, files: Files, ended: Callable[[Ending], None]) -> Running:
        """Start it, if nothing hinders soon; `ended` is called once, later. Raises OSError when it cannot even be tried."""

    def look(self, known: Callable[[bool], None]) -> None:
        """Say, now or later, whether the backend store's file is there."""


class LocalChild:
    """A launcher that this process started. Its signals are safe until `ended`: it is not reaped before."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def drain(self) -> None:
        child.send(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        child.kill_group(self._pid)


class LocalStarter:
    """MLflow as a child of the guard: the process runtime."""

    def __init__(self, loop: Loop, *, temporary: Path, database: Path) -> None:
        self._loop = loop
        self._temporary = temporary
        self._database = database

    def start(self, files: Files, ended: Callable[[Ending], None]) -> Running:
        """See Starter."""
        pid = launch(files, str(self._temporary))
        self._loop.on_exit(pid, lambda code: ended(Ending(code)))
        return LocalChild(pid)

    def look(self, known: Callable[[bool], None]) -> None:
        """See Starter."""
        known(self._database.exists())
