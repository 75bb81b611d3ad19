"""Threads for the reconciler: strictly one job at a time per server, and none waits behind another server's slow one."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable

from backend import log as logs

log = logging.getLogger(__name__)

Job = Callable[[], "Job | None"]
"""Some work on one server. It may return more of it, which goes on in the slow lane while the server is still its own."""


def about(server_id: str, job: Job) -> Job:
    """The job, with what it logs told to be about that server; the work that it returns likewise."""

    def told() -> Job | None:
        with logs.about(server_id=server_id):
            more = job()
        return None if more is None else about(server_id, more)

    return told


class Lane:
    """At most ``size`` threads, made when they are needed. They are daemons: a service that may be killed at any time
    need not wait for them when it ends.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open = 0
        """Jobs that were put here and have not ended."""

    def put(self, job: Callable[[], None]) -> None:
        """Run it as soon as a thread is free. A thread that the machine refuses is asked for again with the next job. Error:
        ``RuntimeError``, where there is none at all.
        """
        with self._lock:
            if self._threads < min(self._size, self._open + 1):
                self._start_thread()
            self._open += 1
        self._jobs.put(job)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads + 1}", daemon=True).start()
        except RuntimeError:
            if self._threads == 0:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            with self._lock:
                self._open -= 1


class Lanes:
    """A quick lane for looks, a slow one for work, and a prompt one for what asks neither a box nor a runtime: it waits for no look that
    does. What has one key is never run twice at once, whatever the lane. Of work for one owner, at most ``share`` is under way.
    """

    def __init__(self, *, prompt: int, quick: int, slow: int, share: int, wake: Callable[[], None]) -> None:
        self._prompt = Lane("prompt", prompt)
        self._quick = Lane("look", quick)
        self._slow = Lane("work", slow)
        self._share = share
        self._wake = wake
        self._busy: dict[str, bool] = {}
        self._owned: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._changed = threading.Condition()

    def prompt(self, key: str, job: Job) -> bool:
        """As ``quick``, for what asks neither a box nor a runtime, and reads what it needs when it runs."""
        return self._submit(self._prompt, key, job, again=False)

    def quick(self, key: str, job: Job, *, asked: bool = False) -> bool:
        """Run a look, unless something of that key is under way already (False): the next look comes soon. `asked`: somebody waits for this
        one, so that ``wake`` is called at the end of what is under way.
        """
        return self._submit(self._quick, key, job, again=asked)

    def slow(self, key: str, job: Job, *, owner: str | None = None) -> None:
        """Run work; where something of that key is under way, or the owner's share, ``wake`` is called at an end of it, so that it is asked
        for again.
        """
        self._submit(self._slow, key, job, again=True, owner=owner)

    def busy(self) -> set[str]:
        """The keys of which something is under way. Of any other nothing begins but by ``prompt``, ``quick`` and ``slow``."""
        with self._changed:
            return set(self._busy)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is under way; False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout)

    def _submit(self, lane: Lane, key: str, job: Job, *, again: bool, owner: str | None = None) -> bool:
        with self._changed:
            if key in self._busy:
                self._busy[key] = self._busy[key] or again
                return False
            if owner is not None and self._owned[owner] >= self._share:
                self._refused.add(owner)
                return False
            self._busy[key] = False
            if owner is not None:
                self._owned[owner] += 1
        try:
            lane.put(lambda: self._run(key, job, owner))
        except RuntimeError:
            self._release(key, owner)
            raise
        return True

    def _run(self, key: str, job: Job, owner: str | None) -> None:
        more: Job | None = None
        try:
            more = job()
        except Exception:  # one server's trouble is not another's, and the next look tries again
            log.exception("work on %s", key)
        if more is not None and self._goes_on(key, more, owner):
            return
        if self._release(key, owner):
            self._wake()

    def _goes_on(self, key: str, work: Job, owner: str | None) -> bool:
        try:
            self._slow.put(lambda: self._run(key, work, owner))
        except RuntimeError as error:
            log.warning("work on %s waits for the next look: %s", key, error)
            return False
        return True

    def _release(self, key: str, owner: str | None) -> bool:
        """Nothing of that key is under way any more. Whether somebody waits for that."""
        with self._changed:
            again = self._busy.pop(key)
            if owner is not None:
                self._owned[owner] -= 1
                again = again or owner in self._refused
                self._refused.discard(owner)
            self._changed.notify_all()
        return again
