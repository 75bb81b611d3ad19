"""The guard's own log: one line per event, in UTC, never with a header, a query or a secret."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress


class Log:
    """Lines to a file (0600)."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __call__(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {' '.join(text.split())}\n"
        try:
            os.write(self._file, line.encode(errors="replace"))  # MLflow's words may hold half a character
        except OSError as error:  # a full disk must not stop the guard
            _complain(f"guard.log: {error}\n")

    def last_words(self, text: str) -> None:
        """Why the box cannot run: the log's last line, and on stderr."""
        self(text)
        _complain(text + "\n")


def _complain(line: str) -> None:
    """On stderr, which may be a file on the same full disk."""
    with suppress(OSError):
        sys.stderr.write(line)


def tell_failure() -> None:
    """The exception that is being handled, on stderr, which may be a file on a full disk."""
    with suppress(OSError):
        traceback.print_exc()
