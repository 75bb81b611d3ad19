"""The time for what cannot be taken back: a clock that is wrong, as after a boot, must destroy nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from backend.atomic import replace_file

log = logging.getLogger(__name__)
SURE_SECONDS: Final = 3600.0
FILE: Final = "sure_time"
"""In the state: what was sure last, so that the next start knows it."""
_GAIN: Final = 2.0
"""So much faster than time passes here what is sure may go: a clock that is years ahead for a day takes one day from what is kept, and what
the service was off for is caught up in as long again.
"""


class SureTime:
    """The earliest time that the clock on the wall told within the last hour or two, with what passed since, but not far beyond what was
    sure before; ``file`` remembers that. ``note`` it at each look.
    """

    def __init__(
        self,
        file: Path | None = None,
        *,
        seconds: float = SURE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._file, self._seconds, self._clock, self._wall = file, seconds, clock, wall
        self._began = clock()
        sure = None if file is None else last_sure(file)
        self._known = None if sure is None else (sure, self._began)
        """What was sure last, and when it was so by the clock that only goes on."""
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
            self._remember(at)

    def now(self) -> datetime | None:
        """None until it was looked at for an hour."""
        sure = self._sure(self._clock())
        return None if sure is None else datetime.fromtimestamp(sure, UTC)

    def not_before(self) -> datetime:
        """The time now, from which on something is to be kept. A clock that is behind what was sure before is not asked: what is
        kept until a day of the past would be over as soon as the clock is set right.
        """
        told, known = self._wall(), self._known
        return datetime.fromtimestamp(told if known is None else max(told, known[0] + self._clock() - known[1]), UTC)

    def _sure(self, at: float) -> float | None:
        if self._before is None:
            return None
        told, known = min(self._before, self._least) + at, self._known
        return told if known is None else min(told, known[0] + _GAIN * (at - known[1]))

    def _remember(self, at: float) -> None:
        sure = self._sure(at)
        if sure is None or (self._known is not None and sure <= self._known[0]):
            return
        self._known = sure, at
        if self._file is not None:
            try:
                replace_file(self._file, f"{datetime.fromtimestamp(sure, UTC).isoformat()}\n".encode())
            except OSError as error:  # what was sure before is sure still
                log.warning(
                    "the sure time was not written to %s, so that purges and resting ports wait after a start: %s", self._file, error
                )


def last_sure(file: Path) -> float | None:
    """What was sure last, in seconds since 1970; None where nobody noted it yet."""
    try:
        return datetime.fromisoformat(file.read_text(encoding="ascii").strip()).timestamp()
    except (OSError, ValueError):
        return None
