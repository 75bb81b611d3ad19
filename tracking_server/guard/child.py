"""The one place where the guard starts programs."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
_ABOVE_TARGETS = 64


def spawn(argv: Sequence[str], *, environment: Mapping[str, str], files: Mapping[int, int], group: int = 0) -> int:
    """Start a program found by the environment's PATH; returns its process id.

    `files` says which of our descriptors the child has under which number; it has no others. `group`: the process group that it joins,
    0 for a new one of its own.

    Raises:
        OSError: it cannot be started.
    """
    # Two steps, so that no target number is overwritten before it is used as a source.
    high = duplicates(files.values(), above=_ABOVE_TARGETS)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in zip(files, high, strict=True)]
        return os.posix_spawnp(
            argv[0], list(argv), environment, file_actions=actions, setpgroup=group, setsigdef=_DEFAULT_SIGNALS, setsigmask=()
        )
    finally:
        for descriptor in high:
            os.close(descriptor)


def duplicates(files: Iterable[int], *, above: int = 0) -> list[int]:
    """Descriptors of our own for the same files, with numbers from `above` on; all of them, or none. Raises OSError."""
    made: list[int] = []
    try:
        for file in files:
            made.append(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above))  # noqa: PERF401 (those before one that fails are to be closed)
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    return made


def kill_group(group: int) -> None:
    """Kill every process of a group; gone already is fine."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def send(pid: int, number: int) -> None:
    """Signal one process that we have not reaped yet; gone already is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def environment(temporary: str) -> dict[str, str]:
    """What every child gets: nothing is handed on from whoever started the box."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": temporary, "TMPDIR": temporary, "PYTHONUNBUFFERED": "1"}
