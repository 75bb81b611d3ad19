"""How long to leave a thing alone that failed: longer each time, until it has been well for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 600.0
WELL_SECONDS: Final = 60.0


@dataclass
class _Trouble:
    tries: int
    since: float
    not_before: float
    well_since: float | None = None


class Backoff:
    """Remembers, per key, tries that did not help. In memory only: a service that was restarted tries at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}
        self._lock = threading.Lock()

    def is_due(self, key: str) -> bool:
        """Whether it may be tried now."""
        with self._lock:
            trouble = self._troubles.get(key)
            return trouble is None or self._clock() >= trouble.not_before

    def tried(self, key: str, longest: float = LONGEST_SECONDS) -> None:
        """It is tried now; the next try comes after 5 s, then 10 s, 20 s, … at most ``longest``, which is 10 minutes."""
        with self._lock:
            at, before = self._clock(), self._troubles.get(key)
            tries = before.tries + 1 if before else 1
            delay = min(longest, FIRST_SECONDS * 2 ** min(tries - 1, 16))
            self._troubles[key] = _Trouble(tries=tries, since=before.since if before else at, not_before=at + delay)

    def seconds(self, key: str) -> float:
        """How long ago the first of the tries was that are remembered; 0 where none is."""
        with self._lock:
            trouble = self._troubles.get(key)
            return 0.0 if trouble is None else self._clock() - trouble.since

    def well(self, key: str) -> None:
        """It is well now. Forgotten only after a minute of that: something that dies at once again must not be tried without end."""
        with self._lock:
            trouble = self._troubles.get(key)
            if trouble is None:
                return
            if trouble.well_since is None:
                trouble.well_since = self._clock()
            if self._clock() - trouble.well_since >= WELL_SECONDS:
                del self._troubles[key]

    def forget(self, key: str) -> None:
        """Somebody asked anew, or it is gone."""
        with self._lock:
            self._troubles.pop(key, None)
