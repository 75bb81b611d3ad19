"""Those who write into SQLite take turns.

SQLite lets one write at a time, and whoever finds it taken sleeps and looks again, up to a tenth of a second later: with forty threads some
are passed over for seconds, and a few for the twenty after which MLflow answers 503. In a queue each comes when it is their turn, and at
once.

A turn is taken with a transaction's first change, where Python's sqlite3 begins it, and is over when the connection goes back to its pool,
after the commit. Whoever is not called for as long as SQLite itself would wait goes on without: never worse off than before. Other
processes, where a server has several, are still waited for by SQLite's way.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

SECONDS = 20.0
"""As MLflow's busy_timeout."""
_CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE")
_OURS = "aihub_turn"


class Turns:
    """A lock that is handed to who has waited longest; `threading.Lock` is taken by whoever comes by."""

    def __init__(self) -> None:
        self._inner = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self, seconds: float = SECONDS) -> bool:
        """False: not called in that time."""
        with self._inner:
            if not self._taken:
                self._taken = True
                return True
            called = threading.Lock()
            called.acquire()  # who ends a turn lets go of it
            self._waiting.append(called)
        if called.acquire(timeout=seconds):
            return True
        with self._inner:
            if called in self._waiting:
                self._waiting.remove(called)
                return False
        return True  # called in the last moment

    def end(self) -> None:
        """By whoever had it, on any thread."""
        with self._inner:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def install() -> None:
    """For all engines of this process: MLflow makes its own when it is first asked."""
    from sqlalchemy import Engine, Pool, event

    turns = Turns()

    def before_change(connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if connection.dialect.name != "sqlite" or not statement[:20].lstrip().upper().startswith(_CHANGES):
            return
        record = connection.connection.record_info
        if record is not None and not record.get(_OURS):
            record[_OURS] = turns.take()

    def given_back(_connection: Any, record: Any) -> None:
        if record.record_info.pop(_OURS, False):
            turns.end()

    event.listen(Engine, "before_cursor_execute", before_change)
    event.listen(Pool, "checkin", given_back)
