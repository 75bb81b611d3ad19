"""Keeps the logs of `log/` bounded: past a size a log becomes `NAME.1`, whose former content goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tracking_server.guard.loop import Loop

LIMIT_BYTES = 16 * 1024 * 1024
SECONDS = 1.0
"""Between two looks: a stranger's requests, refused as they are, write some megabytes a second."""
_OF_NGINX = ("access.log", "nginx-error.log")


class LogKeeper:
    """`reopen` makes nginx open its logs anew. The others write to the end of a file that they hold, so those are copied and emptied."""

    def __init__(
        self, loop: Loop, folder: Path, *, reopen: Callable[[], None], log: Callable[[str], None], limit: int = LIMIT_BYTES
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._reopen = reopen
        self._log = log
        self._limit = limit
        self._moved: set[str] = set()
        self._loop.later(SECONDS, self._look)

    def _look(self) -> None:
        self._loop.later(SECONDS, self._look)
        try:
            self.bound()
        except OSError as error:  # a full disk: another time
            self._log(f"the logs stay as they are: {error.strerror}")

    def bound(self) -> None:
        """One look at every log now."""
        for name in _OF_NGINX:
            self._rename(name)
        # Until nginx could make a new one it writes to the end of the old one.
        self._moved = {name for name in self._moved if not (self._folder / name).exists()}
        if self._moved:
            self._reopen()
        for name in ("guard.log", "mlflow.log"):
            self._copy_and_empty(name)

    def _is_full(self, name: str) -> bool:
        try:
            return (self._folder / name).stat().st_size > self._limit
        except FileNotFoundError:
            return False

    def _rename(self, name: str) -> None:
        if self._is_full(name):
            (self._folder / name).replace(self._folder / f"{name}.1")
            self._moved.add(name)

    def _copy_and_empty(self, name: str) -> None:
        """The end of it is kept: code in MLflow's process can make its log as long as it likes, without writing that."""
        if not self._is_full(name):
            return
        with (self._folder / name).open("rb") as log:
            log.seek(-self._limit, os.SEEK_END)
            (self._folder / f"{name}.1").write_bytes(log.read(self._limit))
        os.truncate(self._folder / name, 0)
