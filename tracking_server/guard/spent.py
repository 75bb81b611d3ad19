"""What may not be used again: tickets that were used, sessions that were signed out. Kept until they would have expired anyway, and the
latest for longer: a clock that is weeks ahead says of all that they have, and once it is right they could be used again.

A file in `run/` remembers it over a restart of the guard. It is not forced to the disk at each use, so after a reboot of the machine (the
kernel's boot id, its first line, is another) it counts as lost, and tickets from before the guard's start are refused.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN = "unknown"
_TIDY_LINES = 4096
_LATEST = 1024
_LINE = re.compile(r"([!-~]+) ([0-9]+\.[0-9]{3})")


class Spent:
    """`survived`: whether everything that was spent before is known."""

    def __init__(self, path: Path, *, now: float) -> None:
        self._path = path
        self._until: dict[str, float] = {}
        self.survived = self._load()
        self._lines = 0
        self._file = -1
        self._tidy(now)

    def add(self, name: str, until: float, *, now: float) -> bool:
        """Spend it; False when it was spent before.

        Raises:
            OSError: it cannot be written down, so it must not be taken as spent.
        """
        if name in self:
            return False
        if self._lines > _TIDY_LINES:
            self._tidy(now)
        _write(self._file, f"{name} {until:.3f}\n")
        self._lines += 1
        self._until[name] = until
        return True

    def __contains__(self, name: str) -> bool:
        return name in self._until

    def _load(self) -> bool:
        try:
            status = self._path.stat()
            boot, *lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
        except (OSError, ValueError):
            return False
        entries = [entry for entry in map(_LINE.fullmatch, lines) if entry]  # one that was torn takes none of the others along
        self._until = {entry[1]: float(entry[2]) for entry in entries}
        return len(entries) == len(lines) and status.st_uid == os.geteuid() and boot != _UNKNOWN and boot == _boot_id()

    def _tidy(self, now: float) -> None:
        """Write the file anew with what still counts."""
        latest = len(self._until) - _LATEST
        self._until = {name: until for place, (name, until) in enumerate(self._until.items()) if place >= latest or until > now}
        fresh = self._path.with_name(self._path.name + ".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(file, "\n".join([_boot_id(), *(f"{name} {until:.3f}" for name, until in self._until.items()), ""]))
            fresh.replace(self._path)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._lines = file, len(self._until)


def _write(file: int, text: str) -> None:
    """All of it or nothing: what comes next must not go on in the middle of a line."""
    data = text.encode()
    written = os.write(file, data)
    if written < len(data):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return _UNKNOWN
