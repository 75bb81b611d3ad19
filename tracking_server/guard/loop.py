"""One thread's events: files, timers, signals, ended children, and calls from other threads."""

from __future__ import annotations

import heapq
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """A call that will be made; `cancel` it and it will not."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Everything but `post` is for the loop's own thread, which must be the main one (signals)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._signals: dict[int, Callable[[], None]] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        self._resting: dict[int, Timer] = {}
        self._running = True
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        self._selector.register(self._bell_out, READ, self._rung)
        signal.set_wakeup_fd(self._bell_in.fileno(), warn_on_full_buffer=False)
        self.on_signal(signal.SIGCHLD, self._reap)

    def watch(self, file: socket.socket | int, events: int, call: Callable[[], None]) -> None:
        """Call whenever the file is ready; a second `watch` of the same file replaces the first."""
        self._end_rest(file)
        try:
            self._selector.modify(file, events, call)
        except KeyError:
            self._selector.register(file, events, call)

    def unwatch(self, file: socket.socket | int) -> None:
        """Watched or not, it is not watched afterwards. To be called before the file is closed."""
        self._end_rest(file)
        with suppress(KeyError):
            self._selector.unregister(file)

    def rest(self, file: socket.socket | int, seconds: float) -> None:
        """Do not call for this watched file for so long, where what it is ready for cannot be done now: it stays ready, and the call would
        come again at once, and again. What `watch` or `unwatch` say of it meanwhile counts instead.
        """
        key = self._selector.unregister(file)

        def again() -> None:
            self.watch(file, key.events, key.data)

        self._resting[key.fd] = self.later(seconds, again)

    def _end_rest(self, file: socket.socket | int) -> None:
        timer = self._resting.pop(file if isinstance(file, int) else file.fileno(), None)
        if timer is not None:
            timer.cancel()

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, so many seconds from now, unless the timer is cancelled before."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def post(self, call: Callable[[], None]) -> None:
        """From any thread: make the call soon, in the loop's thread."""
        self._posted.append(call)
        with suppress(BlockingIOError):  # it rings already
            self._bell_in.send(b"\0")

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call, in the loop's thread, whenever this signal comes."""
        self._signals[number] = call
        signal.signal(number, lambda _number, _frame: None)  # the bell tells us which

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        """Call with the exit code (negative: the signal's number) when this child has ended."""
        self._children[pid] = call

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Make the calls until `stop`; what one of them raises ends it."""
        while self._running:
            watched = self._selector.get_map()
            for key, _ in self._selector.select(self._patience()):
                # An earlier one of the same moment may have ended what this one is about, and closed its file.
                if watched.get(key.fd) == key:
                    key.data()
            now = time.monotonic()
            while self._timers and self._timers[0].at <= now:
                call = heapq.heappop(self._timers).call
                if call is not None:
                    call()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].at - time.monotonic()) if self._timers else None

    def _rung(self) -> None:
        try:
            numbers = self._bell_out.recv(4096)
        except BlockingIOError:
            return
        while self._posted:
            self._posted.popleft()()
        for number in sorted(set(numbers) - {0}):
            if number in self._signals:
                self._signals[number]()

    def _reap(self) -> None:
        """As the first process of a container we also inherit orphans: those are reaped and forgotten."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            call = self._children.pop(pid, None)
            if call is not None:
                call(os.waitstatus_to_exitcode(status))
