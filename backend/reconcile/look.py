"""One look at one server for which nothing was asked: what the runtime shows against what the registry wishes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.orm.attributes import flag_modified

from backend.atomic import full_disk_is_ours
from backend.domain import BoxState, Desired, Observation, Status
from backend.errors import ServiceError
from backend.files import disk
from backend.files.snapshots import database_of
from backend.files.untrusted_files import is_there
from backend.plans.box_steps import ACCESS, ensure_started, ensure_stopped, log_of, observe, wait_taken_over
from backend.plans.catalogue import reason_of
from backend.plans.forget import forget_server, was_never_made
from backend.plans.wanted import wanted_box
from backend.plans.world import StoppingError, World
from backend.reconcile import leftovers
from backend.reconcile.lanes import Job
from backend.registry.models import Server, now
from backend.wishes import access, membership
from backend.wishes.lookup import unfinished

log = logging.getLogger(__name__)

SILENT_SECONDS: Final = 30.0
"""A box that gives no answer for this long is started anew."""
NOTED_SECONDS: Final = 60.0
"""``observed_at`` is written at least this often, also when nothing changed."""
_WELL: Final = {
    BoxState.AWAKE: Status.RUNNING,
    BoxState.WAKING: Status.RUNNING,
    BoxState.DRAINING: Status.RUNNING,
    BoxState.ASLEEP: Status.SLEEPING,
}


class Looker:
    """Looks, notes the status, and returns the work that is needed, if any: the caller runs it where slow work may run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._silent: dict[str, float] = {}
        self._lock = threading.Lock()

    def look(self, server_id: str, row: Server | None = None) -> Job | None:
        """Look at that server once. A server with an operation under way is that operation's.

        ``row``: as it was a moment ago with none under way, and nothing of ours has been since, so that a pass can read all at once. People
        may have asked for something: whatever acts reads it again.
        """
        world = self._world
        server = row or _untouched(world, server_id)
        if server is None:
            return None
        if server.deleted_at is not None:
            return self._clearing(server) or self._forgetting(server)
        seen = observe(world, server)
        frozen = _frozen(world, server)
        if frozen is not None:
            status, _reason = self._judge(server, seen)
            is_down = seen.state is BoxState.ABSENT and server.desired == Desired.RUNNING  # and nobody repairs it
            _note(world, server, Status.FAILED if is_down else status, reason_of(frozen))
            return self._telling(server)  # who left must not stay in
        return self._act(server, seen) or self._telling(server) or self._forgetting(server)

    def retract(self, server_id: str) -> None:
        """What a box learns at once, while an operation on it is under way or its look waits for the runtime: who may in no more. A look
        tells the rest, and notes that it was told.
        """
        world = self._world
        server = world.server(server_id)
        if server is None or server.deleted_at is not None:
            return
        try:
            if world.boxes.retract(wanted_box(server, world.settings, world.keyring)):
                log.info("server %s: who may in no more was written", server_id)
        except ServiceError as error:
            log.warning("server %s could not be told who may in no more: %s", server_id, error)

    def _telling(self, server: Server) -> Job | None:
        """The box is to be told who may in and who no more."""
        if access.is_told(server) or server.desired == Desired.ABSENT:
            return None
        return lambda: self._tell(server.id)

    def _tell(self, server_id: str) -> None:
        world = self._world
        server = _untouched(world, server_id)
        if server is None or server.deleted_at is not None:
            return
        try:
            world.boxes.install(wanted_box(server, world.settings, world.keyring))
            wait_taken_over(world, server, ACCESS)
        except ServiceError as error:
            log.warning("server %s could not be told who may in: %s", server_id, error)
        except StoppingError:
            return
        else:
            access.note_told(world.registry, server)

    def _clearing(self, server: Server) -> Job | None:
        """All of a deleted server whose time is over; before that, what a restore that failed left of its box."""
        if self._world.is_over(server.restorable_until):
            return self._work(server, partial(leftovers.purge, self._world))
        return self._work(server, partial(leftovers.clear_box, self._world)) if leftovers.is_box_there(self._world, server) else None

    def _forgetting(self, server: Server) -> Job | None:
        """What is left of a trial, and the database from before an upgrade that was long enough ago."""
        if server.trial_id is not None and self._world.backoff.is_due(server.trial_id):
            return self._while_untouched(server.id, leftovers.clear_trial)
        if self._world.is_over(server.previous_until):
            return self._while_untouched(server.id, leftovers.forget_previous)
        return None

    def _while_untouched(self, server_id: str, action: Callable[[World, Server], None]) -> Job:
        """The action as work, unless an operation that needs what it removes, as a roll back, has come until it runs."""

        def job() -> None:
            current = _untouched(self._world, server_id)
            if current is not None:
                action(self._world, current)

        return job

    def _act(self, server: Server, seen: Observation) -> Job | None:
        if server.desired == Desired.ABSENT:
            return self._work(server, self._finish_removal)
        status, reason = self._judge(server, seen)
        _note(self._world, server, status, reason)
        if server.desired == Desired.STOPPED:
            return None if seen.state is BoxState.ABSENT else self._work(server, self._stop)
        if seen.state is BoxState.ABSENT:
            return self._work(server, self._start)
        if status is Status.FAILED:
            return self._work(server, self._restart)
        if seen.state in _WELL:
            self._world.backoff.well(server.id)
            self._tidy(server)
        return None

    def _judge(self, server: Server, seen: Observation) -> tuple[Status, dict[str, Any] | None]:
        """The status that users see, and the reason. What cannot be told yet stays as it was."""
        silent_for = self._silent_for(server.id, seen)
        if seen.state in _WELL:
            short = disk.trouble(self._world.settings, self._world.boxes.directory(server.id))
            return _WELL[seen.state], None if short is None else _steady(server, reason_of(short))
        if seen.stranger:
            return Status.FAILED, reason_of(ServiceError("port_taken", port=server.port))
        if seen.state is BoxState.FAILED or silent_for > SILENT_SECONDS:
            log_lines, why = log_of(self._world, server.id), seen.detail or "it says that it failed"
            return Status.FAILED, reason_of(ServiceError("box_ill", log=log_lines, why=why))
        if seen.state is BoxState.ABSENT and server.desired == Desired.STOPPED:
            return Status.STOPPED, None
        return Status(server.status), server.reason

    def _silent_for(self, server_id: str, seen: Observation) -> float:
        with self._lock:
            if seen.state is not BoxState.SILENT:
                self._silent.pop(server_id, None)
                return 0.0
            return time.monotonic() - self._silent.setdefault(server_id, time.monotonic())

    def _tidy(self, server: Server) -> None:
        """The settings in force are the wished ones, and nothing is kept of a server that is back."""
        world = self._world
        if not world.boxes.is_installed(wanted_box(server, world.settings, world.keyring)):
            self._put_right(server.id)
        if world.kept.exists(server.id) and is_there(database_of(world.boxes.directory(server.id))):
            world.kept.remove(server.id)

    def _put_right(self, server_id: str) -> None:
        """By the row as it is now: one from before must give nobody back what was taken since."""
        world = self._world
        server = _untouched(world, server_id)
        if server is None:
            return
        try:
            if world.boxes.install(wanted_box(server, world.settings, world.keyring)):
                log.info("server %s: its settings differed and were written", server_id)
        except ServiceError as error:
            log.warning("server %s: its settings could not be written: %s", server_id, error)

    def _work(self, server: Server, action: Callable[[Server], None]) -> Job | None:
        """The action as work, unless it was tried a short while ago. Things may change until it runs, so the row is read again then."""
        world, wished = self._world, server.desired
        if not world.backoff.is_due(server.id):
            return None

        def job() -> None:
            current = _untouched(world, server.id)
            if current is None or current.desired != wished or current.deleted_at != server.deleted_at:
                return
            world.backoff.tried(server.id)
            try:
                with full_disk_is_ours("putting the tracking server in order"):
                    action(current)
            except ServiceError as error:
                log.warning("server %s: %s", server.id, error)
                _note_failed(world, current, error)
            except StoppingError:
                return
            except Exception:  # a mistake of ours, which the log tells: nobody may go on to read that the server runs
                _note_failed(world, current, ServiceError("internal", request_id=server.id))
                raise

        return job

    def _start(self, server: Server) -> None:
        world = self._world
        log.info("server %s should run and does not: starting it", server.id)
        with world.slot():
            world.boxes.install(wanted_box(server, world.settings, world.keyring))
            ensure_started(world, server)

    def _restart(self, server: Server) -> None:
        self._stop(server)
        self._start(server)

    def _stop(self, server: Server) -> None:
        ensure_stopped(self._world, server)

    def _finish_removal(self, server: Server) -> None:
        """What a create or delete left that could not be taken back or ended at its time."""
        world = self._world
        ensure_stopped(world, server)
        world.boxes.remove(server.id)
        kept = world.kept.exists(server.id)
        with world.registry.session() as session:
            row = session.get_one(Server, server.id)
            if kept:
                row.status, row.reason, row.deleted_at = Status.DELETED, None, world.sure_time.not_before()
                row.restorable_until = row.deleted_at + timedelta(days=world.settings.restore_days)
            else:
                unknown = was_never_made(session, row)
                forget_server(session, row, rest_until=None if unknown else world.port_rests_until())
        world.backoff.forget(server.id)


def _untouched(world: World, server_id: str) -> Server | None:
    """The row of a server for which no operation is under way."""
    with world.registry.reading() as session:
        server = session.get(Server, server_id)
        return None if server is None or unfinished(session, [server_id]) else server


def _frozen(world: World, server: Server) -> ServiceError | None:
    """A server whose group is not what it was gets no repair. NSS that does not answer freezes nothing: it lets nobody in either."""
    try:
        return membership.changed_group(world.directory, server)
    except ServiceError:
        return None


def _is_fresh(server: Server) -> bool:
    return server.observed_at is not None and now() - server.observed_at < timedelta(seconds=NOTED_SECONDS)


def _steady(server: Server, reason: dict[str, Any]) -> dict[str, Any]:
    """The reason as it was noted last, where only its numbers may differ: how much is free changes with each look, and to note that of each
    server each time would be a write for each, on a disk that has no room.
    """
    noted = server.reason
    return noted if noted is not None and noted["code"] == reason["code"] and _is_fresh(server) else reason


def _note_failed(world: World, server: Server, error: ServiceError) -> None:
    if server.deleted_at is None:
        _note(world, server, Status.FAILED, reason_of(error))


def _note(world: World, server: Server, status: Status, reason: dict[str, Any] | None) -> None:
    """Write what was seen, where it is news. Not what was asked meanwhile: then it is no longer ours to say."""
    if server.status == status and server.reason == reason and _is_fresh(server):
        return
    with world.registry.session() as session:
        row = session.get(Server, server.id)
        if row is None or row.desired != server.desired or unfinished(session, [server.id]):
            return
        changed = (row.status, row.reason) != (status, reason)
        row.status, row.reason, row.observed_at = status, reason, now()
        if not changed:
            flag_modified(row, "updated_at")  # nobody changed the server: it keeps its time
