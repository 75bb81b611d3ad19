"""How long a look at all servers takes, until the last one was looked at: by that one sees when it becomes too much."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from backend.reconcile.lanes import Job


class Round:
    """Looks that are handed out together. ``ended`` is told the seconds, once, when ``close`` was called and all looks are done."""

    def __init__(self, ended: Callable[[float], None]) -> None:
        self._ended = ended
        self._began = time.monotonic()
        self._open = 1
        self._lock = threading.Lock()

    def of(self, look: Job) -> Job:
        """The look, as one of the round's from now on. What it returns as work is none of it."""
        with self._lock:
            self._open += 1

        def looking() -> Job | None:
            try:
                return look()
            finally:
                self.close()

        return looking

    def close(self) -> None:
        """One is done: a look, one that was not taken, or the handing out itself."""
        with self._lock:
            self._open -= 1
            done = self._open == 0
        if done:
            self._ended(time.monotonic() - self._began)
