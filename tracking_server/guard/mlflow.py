"""MLflow: started when a connection waits, gone when it has been idle; the guard holds its socket all the while.

The launcher (`tracking_server.mlflow_process`) decides by itself when it is idle and ends with status 0: it stops accepting first, so a
connection that comes in that moment stays in the socket's queue, and the guard, who then watches the socket again, starts the next one.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from typing import NamedTuple

from tracking_server.guard.http import Request, Respond, Response, accept_all
from tracking_server.guard.loop import READ, Loop, Timer
from tracking_server.guard.starters import Ending, Files, Running, Starter

START_SECONDS = 180.0
TRIES = 3
_KILL_GRACE = 10.0
_BETWEEN_TRIES = 1.0
_FIRST_RETRY = 15.0
_LONGEST_RETRY = 300.0
_WORD_BYTES = 4096
_REASON_CHARACTERS = 500


class State(Enum):
    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    DRAINING = "draining"
    FAILED = "failed"


class Launch(NamedTuple):
    """What a launcher is started with. `plan`: a JSON document with settings and keys, given through a pipe.

    `goes_on`: it may have work that waits when nobody asks, so it is started again whenever it did not fall asleep by itself.
    """

    plan: dict[str, object]
    drain_seconds: float
    goes_on: bool = False


class MlflowProcess:
    def __init__(
        self,
        *,
        loop: Loop,
        listener: socket.socket,
        log: Callable[[str], None],
        output: Callable[[], int],
        launch: Callable[[], Launch],
        starter: Starter,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._log = log
        self._output = output
        self._launch = launch
        self._starter = starter
        self._running: Running | None = None
        self._status = -1
        self._words = b""
        self._failures = 0
        self._retries = 0
        self._deadline: Timer | None = None
        self._retry: Timer | None = None
        self._stopping: Callable[[], None] | None = None
        self._drain_seconds = 0.0
        self._goes_on = False
        self.state = State.ASLEEP
        self.reason: str | None = None

    def sleep(self) -> None:
        """Nothing runs; the next connection wakes it."""
        self.state = State.ASLEEP
        self._loop.watch(self._listener, READ, self.wake)

    def wake(self) -> None:
        """Start it now, if it is not started."""
        if self._running is not None or self._stopping is not None:
            return
        self._loop.unwatch(self._listener)
        self._cancel_timers()
        self.state = State.WAKING
        self._words = b""
        try:
            self._spawn()
        except (OSError, ValueError) as error:
            self._log(f"MLflow cannot be started: {error}")  # the file's path, which is nothing for everybody
            self._start_failed(f"MLflow cannot be started ({getattr(error, 'strerror', None) or type(error).__name__})")
            return
        self._deadline = self._loop.later(START_SECONDS, self._too_slow)

    def _spawn(self) -> None:
        launch = self._launch()
        self._drain_seconds, self._goes_on = launch.drain_seconds, launch.goes_on
        document = json.dumps(launch.plan).encode()
        with ExitStack() as handed_over:

            def ours(descriptor: int) -> int:
                handed_over.callback(os.close, descriptor)
                return descriptor

            output = ours(self._output())
            plan_reader, plan_writer = map(ours, os.pipe())
            self._status, status_writer = os.pipe()
            ours(status_writer)
            try:
                # A plan is a few kilobytes and a pipe holds 64: this cannot block.
                os.write(plan_writer, document)
                files = Files(plan=plan_reader, output=output, listener=self._listener.fileno(), status=status_writer)
                self._running = self._starter.start(files, self._ended)
            except OSError:
                os.close(self._status)
                raise
        os.set_blocking(self._status, False)
        self._loop.watch(self._status, READ, self._told)

    def _told(self) -> None:
        """The launcher's words, a JSON document a line: `{"state": …}` or `{"reason": …}`."""
        try:
            data = os.read(self._status, 4096)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(self._status)
            return
        *lines, self._words = (self._words + data).split(b"\n")
        self._words = self._words[-_WORD_BYTES:]
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        """Whoever broke into MLflow writes here, too: what is no word of ours is passed over."""
        try:
            word = json.loads(line)
            state, reason = word.get("state"), word.get("reason")
        except (ValueError, AttributeError, RecursionError):
            return
        if isinstance(reason, str):
            self.reason = reason[:_REASON_CHARACTERS]
        if state == "ready" and self.state is State.WAKING:
            self._ready()
        elif state == "draining" and self.state is State.AWAKE:  # of itself: one of its workers failed
            self.state = State.DRAINING
            self._bound_drain()

    def _ready(self) -> None:
        self.state = State.AWAKE
        self.reason = None
        self._failures = self._retries = 0
        self._cancel_timers()
        self._log("MLflow is awake")

    def _ended(self, ending: Ending) -> None:
        self._told()
        self._loop.unwatch(self._status)
        os.close(self._status)
        was, self._running, self._status = self.state, None, -1
        self._cancel_timers()
        self._log(ending.reason or f"MLflow ended with status {ending.code}")
        if self._stopping is not None:
            self._stopping()
        elif was is State.WAKING:
            self._start_failed(ending.reason or f"MLflow ended with status {ending.code} while it started; the server's log has more")
        else:
            self.sleep()
            if self._goes_on and (was is State.DRAINING or ending.code != 0):
                self._retry = self._loop.later(_BETWEEN_TRIES if ending.code == 0 else _FIRST_RETRY, self._try_again)

    def _start_failed(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._failures += 1
        self._log(f"MLflow did not start: {self.reason}")
        if self._failures < TRIES:
            self._retry = self._loop.later(_BETWEEN_TRIES * self._failures, self._try_again)
            return
        self.state = State.FAILED
        self._loop.watch(self._listener, READ, self._answer_failed)
        self._retry = self._loop.later(min(_LONGEST_RETRY, _FIRST_RETRY * 2**self._retries), self._try_again)
        self._retries += 1

    def _try_again(self) -> None:
        """While this one try runs, newcomers wait for it; when it fails they are answered again."""
        self._retry = None
        self.reason = None
        self.wake()

    def _answer_failed(self) -> None:
        accept_all(self._loop, self._listener, self._unavailable, once=True)

    def _unavailable(self, _request: Request, respond: Respond) -> None:
        message = f"MLflow does not start on this server: {self.reason}"
        document = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": message}
        respond(Response.of_json(document, 503, (("Retry-After", str(int(_FIRST_RETRY))),)))

    def _too_slow(self) -> None:
        self.reason = f"MLflow was not ready after {START_SECONDS:.0f} seconds; the server's log has more"
        self.kill()

    def restart(self) -> None:
        """Something that it read has changed: drain it; the next connection (or one that waits) has the new."""
        self._failures = self._retries = 0
        if self._running is not None:
            self._drain(self._running)
        elif self.state is State.FAILED:
            self._try_again()

    def _drain(self, running: Running) -> None:
        self.state = State.DRAINING
        running.drain()
        self._bound_drain()

    def _bound_drain(self) -> None:
        self._cancel_timers()
        self._deadline = self._loop.later(self._drain_seconds + _KILL_GRACE, self.kill)

    def stop(self, done: Callable[[], None]) -> None:
        """Drain it and call `done` when it is gone; it is not started again."""
        self._stopping = done
        self._loop.unwatch(self._listener)
        if self._running is not None:
            self._drain(self._running)
        else:
            self._cancel_timers()
            done()

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._retry):
            if timer is not None:
                timer.cancel()
        self._deadline = self._retry = None
