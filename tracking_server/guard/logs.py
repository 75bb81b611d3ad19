"""Keeps the logs of `log/` bounded: past a size a log becomes `NAME.1`, whose former content goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tracking_server.guard.loop import Loop

LIMIT_BYTES = 16 * 1024 * 1024
SECONDS = 60.0


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
        self._loop.later(SECONDS, self._look)

    def _look(self) -> None:
        self._loop.later(SECONDS, self._look)
        try:
            self.bound()
        except OSError as error:  # a full disk: another time
            self._log(f"the logs stay as they are: {error.strerror}")

    def bound(self) -> None:
        """One look at every log now."""
        renamed = [self._rename(name) for name in ("access.log", "nginx-error.log")]
        if any(renamed):
            self._reopen()
        for name in ("guard.log", "mlflow.log"):
            self._copy_and_empty(name)

    def _is_full(self, name: str) -> bool:
        try:
            return (self._folder / name).stat().st_size > self._limit
        except FileNotFoundError:
            return False

    def _rename(self, name: str) -> bool:
        if not self._is_full(name):
            return False
        (self._folder / name).replace(self._folder / f"{name}.1")
        return True

    def _copy_and_empty(self, name: str) -> None:
        if self._is_full(name):
            shutil.copyfile(self._folder / name, self._folder / f"{name}.1")
            os.truncate(self._folder / name, 0)
