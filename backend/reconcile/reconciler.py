"""The reconciler: makes the world be as the registry wishes. The same pass runs at the start, on a timer and after each request."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from backend.domain import FINISHED, UNFINISHED, OperationKind
from backend.files.snapshots import DatabaseCopies
from backend.plans.run import AWAY_SECONDS, run_operation
from backend.plans.world import AwayError, StoppingError, World, nothing
from backend.ports import BoxFiles, Directory, Keeper, ObjectStore, Runtime, Trial
from backend.reconcile import heartbeat
from backend.reconcile.lanes import Lanes, about
from backend.reconcile.leavers import Leavers
from backend.reconcile.look import Looker
from backend.reconcile.orphans import Orphans, find_orphans
from backend.reconcile.renewable import Renewable
from backend.reconcile.rounds import Round
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Operation, Server
from backend.settings import Settings
from backend.sure_time import SureTime
from backend.wishes import access, membership
from backend.wishes.kick import Kick
from backend.wishes.leases import Sweeper

log = logging.getLogger(__name__)

PROMPT_THREADS: Final = 4
"""For who may in, and for leases. Two of them may wait for NSS."""
SLOW_THREADS: Final = 64
"""Operations under way at once. Each may wait for an object store that does not answer, so they are many and cheap."""
USER_PROBES: Final = 8
"""Of those, how many of one user's may be of the kinds that wait for an object store: who names one that keeps callers waiting, again and
again, waits for it alone.
"""
AGAIN_SECONDS: Final = 30.0
"""What waits for a runtime that does not answer is tried again at least this often."""
HOUSEKEEPING_SECONDS: Final = 3600.0
LAST_SECONDS: Final = 5.0
"""What is under way gets this long when the service ends; the next start goes on with the rest."""
QUIET_SECONDS: Final = 600.0
_MANY: Final = 20
_PROBES: Final = (OperationKind.CREATE, OperationKind.STORAGE)


class Reconciler:
    """One per service. ``chore`` is done with every look. ``at`` is told every point that is passed: tests end the process there."""

    def __init__(
        self,
        *,
        registry: Registry,
        runtime: Runtime,
        boxes: BoxFiles,
        store: ObjectStore,
        directory: Directory,
        keyring: Keyring,
        settings: Settings,
        kick: Kick,
        trial: Trial,
        keeper: Keeper | None = None,
        chore: Callable[[], None] | None = None,
        sure_time: SureTime | None = None,
        at: Callable[[str], None] = nothing,
    ) -> None:
        self._kick, self._chore = kick, chore
        self._world = World(
            registry=registry,
            runtime=runtime,
            boxes=boxes,
            kept=DatabaseCopies(settings.kept_dir, keeper),
            previous=DatabaseCopies(settings.previous_dir, keeper),
            replaced=DatabaseCopies(settings.replaced_dir, keeper),
            trial=trial,
            store=store,
            directory=directory,
            keyring=keyring,
            settings=settings,
            start_slots=threading.BoundedSemaphore(settings.reconciler_threads),
            sure_time=sure_time or SureTime(settings.sure_time_file),
            at=at,
        )
        self._looker = Looker(self._world)
        self._leavers = Leavers(registry=registry, directory=directory, keyring=keyring, settings=settings)
        self._sweeper = _sweeper(self._world)
        self._woken = threading.Event()
        self._lanes = Lanes(prompt=PROMPT_THREADS, quick=settings.reconciler_threads, slow=SLOW_THREADS, share=USER_PROBES, wake=self._wake)
        self._tidied_at, self._pass_seconds, self._reported = float("-inf"), 0.0, Orphans()

    def run(self, stop: threading.Event) -> None:
        """Reconcile until ``stop`` is set, then return within seconds; what is under way goes on at the next start. Waits its turn where
        another reconciler of the same state still runs.
        """
        threading.Thread(target=self._end_when, args=(stop,), name="reconciler-end", daemon=True).start()
        with self._alone(stop):
            if stop.is_set():
                return
            self._kick.listen()
            log.info("the reconciler begins")
            self._loop(stop)
            self._lanes.wait_idle(LAST_SECONDS)
            self._kick.close()
        log.info("the reconciler has ended")

    def reconcile_all(self) -> None:
        """Look at everything and do what is to be done, until it is done; for tests, while no reconciler runs."""
        for _ in range(_MANY):
            self._woken.clear()
            with self._world.registry.reading() as session:
                asked = _unfinished(session)
            self._pass(full=True)
            self._lanes.wait_idle(QUIET_SECONDS)
            if not asked and not self._woken.is_set():
                return

    def _loop(self, stop: threading.Event) -> None:
        next_look = 0.0
        while not stop.is_set():
            full = time.monotonic() >= next_look
            if full:
                next_look = time.monotonic() + self._world.settings.observe_seconds
            try:
                self._pass(full=full)
                if full:  # afterwards: a registry that cannot be read is no good health
                    heartbeat.beat(self._world.settings.run_dir, self._pass_seconds)
            except Exception:  # a registry that is locked or a disk that is full: say it, and look again at the next beat
                log.exception("a pass of the reconciler")
            self._kick.wait(next_look - time.monotonic())

    def _pass(self, *, full: bool) -> None:
        """Hand out the work. Nothing here waits for a box or an object store."""
        self._world.sure_time.note()
        self._lanes.prompt("leases", self._look_at_leases)
        busy = self._lanes.busy()
        with self._world.registry.reading() as session:
            asked, untold = _unfinished(session), access.untold(session)
            rows = {row.id: row for row in session.scalars(select(Server))} if full else {}
        retracting = set(untold)  # each at once: also a look waits for the runtime before it tells
        for key, operations in asked.items():
            if not self._world.backoff.is_due(_trouble(key)):
                continue
            if full:
                retracting.add(key)  # of another ticket key no row says whether the box has it
            if not self._world.backoff.is_due(_away(key)):
                continue
            owner = next((each.requested_by for each in operations if each.kind in _PROBES), None)
            self._lanes.slow(key, lambda key=key, operations=operations: self._operate(key, operations), owner=owner)  # type: ignore[misc]
        for server_id in retracting:
            retract = about(server_id, lambda server_id=server_id: self._looker.retract(server_id))  # type: ignore[misc]
            self._lanes.prompt(f"access of {server_id}", retract)
        # What was under way before the rows were read may have changed its own since: that look reads it again.
        looks = {server_id: None if server_id in busy else rows.get(server_id) for server_id in rows or untold if server_id not in asked}
        self._look_at(looks, full=full)
        if not full:
            return
        self._lanes.prompt("members", self._look_at_members)
        if self._chore is not None:
            self._lanes.quick("chore", self._chore)
        if time.monotonic() - self._tidied_at >= HOUSEKEEPING_SECONDS:
            self._tidied_at = time.monotonic()
            self._lanes.quick("housekeeping", self._tidy)

    def _look_at(self, looks: Mapping[str, Server | None], *, full: bool) -> None:
        together = Round(self._note_seconds if full else lambda _seconds: None)
        for server_id, row in looks.items():
            look = together.of(about(server_id, lambda server_id=server_id, row=row: self._looker.look(server_id, row)))  # type: ignore[misc]
            if not self._lanes.quick(server_id, look, asked=not full):
                together.close()
        together.close()

    def _note_seconds(self, seconds: float) -> None:
        self._pass_seconds = seconds

    def _operate(self, key: str, operations: list[Operation]) -> None:
        """Bring them to their ends. What is in the way of that, a key file that is missing or a registry that is full, is waited out; a
        runtime that does not answer for ``AWAY_SECONDS``.
        """
        backoff = self._world.backoff
        backoff.forget(key)
        patient = backoff.seconds(_away(key)) < AWAY_SECONDS
        try:
            for operation in operations:
                run_operation(self._world, operation.id, patient=patient)
        except StoppingError:
            log.info("the work on %s is left to the next start", key)
        except AwayError as error:
            backoff.tried(_away(key), longest=AGAIN_SECONDS)
            log.warning("the work on %s waits: %s", key, error)
            return
        except Exception:
            backoff.tried(_trouble(key))
            raise
        backoff.forget(_trouble(key))
        backoff.forget(_away(key))

    def _look_at_leases(self) -> None:
        if self._sweeper.sweep():
            self._wake()

    def _look_at_members(self) -> None:
        membership.update_all(self._world.registry, self._world.directory)
        if self._leavers.sweep():
            self._wake()

    def _tidy(self) -> None:
        """Forget old operations and what nobody enters by any more; say what no row knows."""
        world, sure = self._world, self._world.sure_time.now()
        if sure is not None:
            self._leavers.tidy(sure)
            oldest = sure - timedelta(days=world.settings.operations_days)
            with world.registry.session() as session:
                session.execute(delete(Operation).where(Operation.state.in_(FINISHED), Operation.finished_at < oldest))
        orphans = find_orphans(registry=world.registry, runtime=world.runtime, boxes=world.boxes, copies=world.copies)
        if orphans and orphans != self._reported:
            log.warning("no server of the registry has these; `aihub check --remove-orphans` removes them: %s", orphans)
        self._reported = orphans

    def _wake(self) -> None:
        self._woken.set()
        self._kick.send()

    def _end_when(self, stop: threading.Event) -> None:
        stop.wait()
        self._world.stop.set()
        self._kick.send()

    @contextmanager
    def _alone(self, stop: threading.Event) -> Iterator[None]:
        """Only one reconciler works on one state: two would start and stop the same boxes."""
        with (self._world.settings.run_dir / "reconciler.lock").open("a") as lock:
            told = False
            while not stop.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        log.warning("another reconciler works on %s: waiting for its end", self._world.settings.state_dir)
                        told = True
                    stop.wait(0.2)
            yield


def _unfinished(session: Session) -> dict[str, list[Operation]]:
    """The operations that have not ended, oldest first, by server; one whose server is gone stands alone."""
    asked: dict[str, list[Operation]] = {}
    unfinished = select(Operation).where(Operation.state.in_(UNFINISHED))
    for operation in session.scalars(unfinished.order_by(Operation.created_at, Operation.id)):
        asked.setdefault(operation.server_id or operation.id, []).append(operation)
    return asked


def _sweeper(world: World) -> Sweeper:
    can_renew = Renewable(settings=world.settings, registry=world.registry, directory=world.directory)
    return Sweeper(registry=world.registry, can_renew=can_renew, every=world.settings.observe_seconds)


def _trouble(key: str) -> str:
    """Under which name the trouble with a server's operations is remembered, beside the trouble with the server itself."""
    return f"operations of {key}"


def _away(key: str) -> str:
    """Likewise, for how long they wait for a runtime that does not answer."""
    return f"runtime for {key}"
