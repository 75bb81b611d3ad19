"""More than one worker: MLflow is imported once and forked, so that the workers share what it takes.

Idle is what all of them are: each tells in shared memory when it was last active, and sleeps when nobody was for long enough. One that
found a connection in that moment serves on, and the others are forked anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_REFORK_SECONDS = 1.0
_ENDING = (signal.SIGTERM, signal.SIGINT)
_SLOT = struct.Struct("d")


class SharedActivity:
    """When each worker was last active, on the machine's monotonic clock."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, _SLOT.size * workers)
        self._workers = workers

    def note(self, worker: int, when: float) -> None:
        _SLOT.pack_into(self._memory, worker * _SLOT.size, when)

    def latest(self) -> float:
        return float(max(_SLOT.unpack_from(self._memory, worker * _SLOT.size)[0] for worker in range(self._workers)))


def die_with(parent: int) -> None:
    """Nothing of a box outlives its guard, however that ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def fork(work: Callable[[], int]) -> int:
    """The id of a new process that ends with what `work` returns, with 1 where that fails, and in any case with this one."""
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # what comes before the child has its own rule must not be lost
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        return pid
    status = 1
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        die_with(parent)
        status = work()
    except Exception:
        logging.getLogger(__name__).exception("process %d fails", os.getpid())
    finally:
        sys.stderr.flush()
        os._exit(status)


class Workers:
    """Forks `count` workers, each of which calls `serve(number)` and ends; `run` returns when all of them have ended in order."""

    def __init__(self, count: int, serve: Callable[[int], None]) -> None:
        self._count = count
        self._serve = serve
        self._numbers: dict[int, int] = {}
        self._stopping = False

    def run(self) -> int:
        """The exit status: 0 when the workers fell asleep or were told to end, else that of the first that failed."""
        for each in _ENDING:
            signal.signal(each, lambda _number, _frame: self._stop())
        for number in range(self._count):
            self._fork(number)
        while self._numbers:
            pid, status = os.waitpid(-1, 0)
            number = self._numbers.pop(pid)
            if not self._ended_well(status) or not self._serve_on(number):
                self._stop()
                self._wait_for_the_rest()
                return 1
        return 0

    def _wait_for_the_rest(self) -> None:
        """They end what they have begun, and the guard bounds it. None takes the place of the one that failed: what that had spooled is
        counted until MLflow starts anew.
        """
        while self._numbers:
            pid, _status = os.waitpid(-1, 0)
            self._numbers.pop(pid)

    def _ended_well(self, status: int) -> bool:
        return self._stopping or os.waitstatus_to_exitcode(status) == 0

    def _serve_on(self, number: int) -> bool:
        """The others go to sleep in the same moment; where one does not, it gets its company back. False: one of them failed."""
        deadline = time.monotonic() + _REFORK_SECONDS
        while self._numbers and not self._stopping and time.monotonic() < deadline:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._numbers.pop(pid)
                if not self._ended_well(status):
                    return False
            time.sleep(0.02)
        if self._numbers and not self._stopping:
            missing = set(range(self._count)) - set(self._numbers.values()) | {number}
            for each in sorted(missing):
                self._fork(each)
        return True

    def _fork(self, number: int) -> None:
        if self._stopping:
            return

        def work() -> int:
            self._serve(number)
            return 0

        pid = fork(work)
        self._numbers[pid] = number
        if self._stopping:  # since it was forked, so that it was not among those who were told
            os.kill(pid, signal.SIGTERM)

    def _stop(self) -> None:
        self._stopping = True
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):  # waited for, and not yet noted
                os.kill(pid, signal.SIGTERM)
