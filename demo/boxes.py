"""The tracking servers that the demo's service started. They outlive the service by design, so ending the demo ends them itself.

What is wanted of them stays: the service starts them again when it starts.
"""

import fcntl
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

STOP_SECONDS = 20.0


def stop_boxes(servers: Path) -> int:
    """End every tracking server below the folder and wait until all are gone; returns how many there were."""
    handles = list(_guards(servers))
    for handle in handles:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    for handle in handles:
        if not select.select([handle], [], [], STOP_SECONDS)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])
        os.close(handle)
    return len(handles)


def _guards(servers: Path) -> Iterator[int]:
    """A handle for each guard that runs: it holds the lock on its file, in which its number stands (docs/reference/box.md)."""
    for file in servers.glob("*/run/guard.lock"):
        with file.open() as lock:
            try:
                pid = int(lock.read().strip() or 0)
                handle = os.pidfd_open(pid) if pid else None
            except (ProcessLookupError, ValueError):
                continue
            if handle is None:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # held after the handle was opened: the number is its holder's
                yield handle
            else:
                os.close(handle)
