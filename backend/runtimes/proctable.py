"""Which processes are a box's, read from ``/proc``: those of its guard's session, proved by what they have open."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GUARD_MODULE = "tracking_server"
MIGRATE_MODULE = "tracking_server.migrate"


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    session: int
    zombie: bool


def guard_pid(directory: Path) -> int | None:
    """The process id of the box's guard; None when none runs.

    The lock is the truth, the number in it only says who. It is tried only when a process of that number lives, so that
    looking never gets into the way of a guard that is just about to take it.
    """
    try:
        descriptor = os.open(directory / "run" / "guard.lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        pid = _number(os.read(descriptor, 32))
        process = read_process(pid) if pid else None
        if process is None or process.zombie:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    finally:
        os.close(descriptor)
    return None


def processes_of(directory: Path) -> list[Process]:
    """All living processes of the box, also when its guard is dead, or so young that it holds no lock yet.

    The session alone is not proof: its number may be another's by now, or the guard was started by hand in somebody's shell. So
    each must also have something of the box's directory open, as its working directory, or in its arguments. A migration is known by its
    arguments alone: its session is that of the service that began it, and may have been killed since.
    """
    table = [process for process in _table() if not process.zombie]
    guards = {process.pid for process in table if _is_guard(process.pid, directory)}
    proved = guards | {process.pid for process in table if _is_migration(process.pid, directory)}
    sessions = {process.session for process in table if process.pid in guards} | {_recorded_pid(directory)}
    return [process for process in table if process.pid in proved or (process.session in sessions and _touches(process.pid, directory))]


def read_process(pid: int) -> Process | None:
    """That process now; None when it is gone."""
    try:
        # the program's name stands in brackets and may hold anything, brackets too
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid=pid, session=int(fields[3]), zombie=fields[0] in (b"Z", b"X"))


def _table() -> Iterator[Process]:
    for entry in PROC.iterdir():
        process = read_process(int(entry.name)) if entry.name.isdecimal() else None
        if process is not None:
            yield process


def _recorded_pid(directory: Path) -> int:
    """The number of the last guard, which was its session's number too; -1 for none."""
    try:
        return _number((directory / "run" / "guard.lock").read_bytes()) or -1
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _number(text: bytes) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _is_guard(pid: int, directory: Path) -> bool:
    return _arguments(pid)[-3:] == ["-m", GUARD_MODULE, str(directory)]


def _is_migration(pid: int, directory: Path) -> bool:
    *_before, option, module, database = [""] * 3 + _arguments(pid)
    return (option, module) == ("-m", MIGRATE_MODULE) and database.startswith(f"{directory}/")


def _touches(pid: int, directory: Path) -> bool:
    inside = f"{directory}/"
    return any(f"{name}/".startswith(inside) for name in (*_arguments(pid), *_open_names(pid)))


def _arguments(pid: int) -> list[str]:
    try:
        line = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return [os.fsdecode(argument) for argument in line.split(b"\0")[:-1]]


def _open_names(pid: int) -> Iterator[str]:
    """Its working directory and open files; none where it is not ours to look at, so it is not ours to end either."""
    folder = PROC / str(pid)
    try:
        links = [folder / "cwd", *(folder / "fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:  # closed meanwhile
            continue
