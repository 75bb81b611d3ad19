"""Runs MLflow's server-side GenAI jobs: one more process beside MLflow's workers, and one for each job while it runs.

MLflow's own runner is nine processes that each import MLflow anew, with a queue in files beside its table of jobs. Here the table is the
queue, everything is forked from the parent that has imported MLflow already, and a job's process has our check of locations in it.

A process that is forked must not find an SQLite connection open in its parent: the runner opens one for each question and closes it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tracking_server.mlflow_process import job
from tracking_server.mlflow_process.workers import SharedActivity, fork

INTERRUPTED = "The tracking server was stopped or restarted while the job ran: start it again."
_LOST = "The job's process was ended by {how}, perhaps because the server's memory was used up: start it again, with less at once."
_LOOK_SECONDS = 0.2
_WATCH_SECONDS = 1.0
_LETTER_BYTES = 64 * 1024
_TOO_LONG = (
    f"What the job must know of its model's provider is longer than {_LETTER_BYTES} bytes, which no job can be given: use a shorter key."
)
_log = logging.getLogger(__name__)


class Mailbox:
    """From who takes a job to who runs it. What a job alone may know, as a model provider's key, goes this way and into no file."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inside.setblocking(False)

    def post(self, job_id: str, environment: dict[str, str]) -> bool:
        """False: it is too long for a letter."""
        letter = json.dumps([job_id, environment]).encode()
        if len(letter) > _LETTER_BYTES:
            return False
        self._outside.send(letter)
        return True

    def letters(self, seconds: float) -> list[tuple[str, dict[str, str]]]:
        """What has come, after so long at most."""
        found = []
        if select.select([self._inside], [], [], seconds)[0]:
            while True:
                try:
                    job_id, environment = json.loads(self._inside.recv(_LETTER_BYTES))
                except BlockingIOError:
                    break
                found.append((job_id, environment))
        return found


def install(mailbox: Mailbox) -> None:
    """Into this process's MLflow, once, before it is forked: who takes a job tells the runner, where MLflow would write to a file."""
    import mlflow  # type: ignore[import-not-found]  # MLflow is in the box's environment only
    from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]
    from mlflow.server import handlers  # type: ignore[import-not-found]
    from mlflow.server.jobs import utils  # type: ignore[import-not-found]

    class Queue:
        """What MLflow uses of its own queue's object."""

        def submit_task(self, job_id: str, *arguments: Any) -> None:
            """MLflow gives workspace, name, parameters, time limit, exclusiveness and, where there is one, the job's environment."""
            environment = arguments[5] if len(arguments) > 5 else None
            if not mailbox.post(job_id, environment or {}):
                handlers._get_job_store().fail_job(job_id, _TOO_LONG)  # noqa: SLF001  # as below
                mlflow.end_run("FAILED")  # the one that MLflow has begun for the job, on this thread
                raise MlflowException.invalid_parameter_value(_TOO_LONG)

    utils._get_or_init_huey_instance = lambda _name: Queue()  # noqa: SLF001  # MLflow's versions are pinned


class _Running(NamedTuple):
    job_id: str
    environment: dict[str, str]
    lock: str | None
    deadline: float


class Runner:
    """`prepare` is done in each job's process first. `at_once`: so many run. `seconds`: idle and drain, as MLflow's workers have them."""

    def __init__(
        self,
        mailbox: Mailbox,
        prepare: Callable[[], None],
        *,
        at_once: int,
        seconds: tuple[float, float],
        activity: SharedActivity,
        worker: int,
    ) -> None:
        self._mailbox = mailbox
        self._prepare = prepare
        self._at_once = at_once
        self._idle_seconds, self._drain_seconds = seconds
        self._activity = activity
        self._worker = worker
        self._store: Any = None
        self._waiting: dict[str, tuple[float, dict[str, str]]] = {}
        self._running: dict[int, _Running] = {}
        self._next_look = 0.0
        self._taken_over = False
        self._stop_at: float | None = None

    def run_until_idle(self) -> None:
        """Until nobody, no job included, was active for long enough, or SIGTERM."""
        from mlflow.exceptions import MlflowException

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        self._store = job.store_without_connections()
        self._activity.note(self._worker, time.monotonic())
        while not self._over():
            for job_id, environment in self._mailbox.letters(_LOOK_SECONDS):
                if all(each.job_id != job_id for each in self._running.values()):  # found in the table before its letter came
                    self._waiting[job_id] = (0.0, environment)
            try:
                self._turn()
            except (MlflowException, OSError):  # none of one job's mishaps ends the server
                _log.exception("the jobs cannot be looked after now")
        self._end_all()

    def _asked_to_stop(self, _number: int, _frame: object) -> None:
        self._stop_at = time.monotonic() + self._drain_seconds

    def _take_over(self) -> None:
        """From the runner before. What ran then is not run again: it may have cost money, or the server its memory."""
        from mlflow.entities._job_status import JobStatus  # type: ignore[import-not-found]

        for each in list(self._store.list_jobs(statuses=[JobStatus.RUNNING])):
            self._fail(each.job_id, INTERRUPTED)
        for each in list(self._store.list_jobs(statuses=[JobStatus.PENDING])):
            self._waiting.setdefault(each.job_id, (0.0, {}))  # its letter may have come
        self._taken_over = True

    def _turn(self) -> None:
        now = time.monotonic()
        if not self._taken_over:
            self._take_over()
        self._reap()
        if now >= self._next_look:
            self._next_look = now + _WATCH_SECONDS
            self._watch(now)
        if self._stop_at is None:
            self._begin_waiting(now)
        if self._waiting or self._running:
            self._activity.note(self._worker, now)

    def _over(self) -> bool:
        now = time.monotonic()
        if self._stop_at is not None:
            return not self._running or now >= self._stop_at
        return not self._running and not self._waiting and 0 < self._idle_seconds <= now - self._activity.latest()

    def _begin_waiting(self, now: float) -> None:
        for job_id, (not_before, environment) in list(self._waiting.items()):
            if len(self._running) >= self._at_once:
                return
            if not_before <= now:
                self._waiting[job_id] = (now + _WATCH_SECONDS, environment)  # should the table not answer
                self._begin(job_id, environment)
                del self._waiting[job_id]

    def _begin(self, job_id: str, environment: dict[str, str]) -> None:
        entity = self._store.get_job(job_id)
        if entity.status != "PENDING":
            return
        lock = job.lock_of(entity)
        if lock is not None and any(each.lock == lock for each in self._running.values()):
            self._store.cancel_job(job_id)
            return
        pid = self._fork(lambda: job.run(job_id, environment))
        deadline = float("inf") if entity.timeout is None else time.monotonic() + entity.timeout
        self._running[pid] = _Running(job_id, environment, lock, deadline)

    def _reap(self) -> None:
        for pid, each in list(self._running.items()):
            code = _ended(pid)
            if code is not None:
                self._ended(each, code)  # where the table does not answer, the kernel keeps the code for the next turn
                os.waitpid(pid, 0)
                del self._running[pid]

    def _ended(self, was: _Running, code: int) -> None:
        from mlflow.exceptions import MlflowException

        try:
            entity = self._store.get_job(was.job_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # called off, and cleared away already
                return
            raise
        if code == job.AGAIN:
            self._waiting[was.job_id] = (time.monotonic() + job.pause_before(entity.retry_count), was.environment)
        elif entity.status in ("PENDING", "RUNNING"):
            self._fail(was.job_id, _LOST.format(how=f"signal {-code}" if code < 0 else f"status {code}"))

    def _watch(self, now: float) -> None:
        """Who was called off or takes too long."""
        for pid, each in self._running.items():
            if now >= each.deadline:
                self._store.mark_job_timed_out(each.job_id)
                os.kill(pid, signal.SIGKILL)
            elif self._store.get_job(each.job_id).status == "CANCELED":
                os.kill(pid, signal.SIGKILL)

    def _fail(self, job_id: str, reason: str) -> None:
        os.waitpid(self._fork(lambda: job.fail(job_id, reason)), 0)

    def _end_all(self) -> None:
        for pid, each in self._running.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._fail(each.job_id, INTERRUPTED)

    def _fork(self, work: Callable[[], int]) -> int:
        def prepared() -> int:
            self._prepare()
            return work()

        return fork(prepared)


def _ended(pid: int) -> int | None:
    """The exit code of a child, negative for a signal; None: it runs. It is still to be waited for."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
