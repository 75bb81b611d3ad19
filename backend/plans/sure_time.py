"""The time for what cannot be taken back: a clock that is ahead for a moment, as after a boot, must destroy nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

SURE_SECONDS: Final = 3600.0


class SureTime:
    """The earliest time that the clock on the wall told within the last hour or two, with what passed since. ``note`` it at each look."""

    def __init__(
        self, *, seconds: float = SURE_SECONDS, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._seconds, self._clock, self._wall = seconds, clock, wall
        self._began = clock()
        self._before: float | None = None
        self._least = wall() - self._began
        """How far the clock on the wall is ahead of the other one, at least: since ``_began``; ``_before``: in the hour before that."""

    def note(self) -> None:
        """Look at the clock."""
        at = self._clock()
        ahead = self._wall() - at
        self._least = min(self._least, ahead)
        if at - self._began >= self._seconds:
            self._before, self._least, self._began = self._least, ahead, at

    def now(self) -> datetime | None:
        """None until it was looked at for an hour."""
        if self._before is None:
            return None
        return datetime.fromtimestamp(min(self._before, self._least) + self._clock(), UTC)
