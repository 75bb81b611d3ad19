"""Leases: somebody, mostly a job, vouches for a server until a time. When the last one of a server is over, that one says whether the
server is stopped or kept. A job that dies without a word is noticed by the time that it did not renew.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.domain import Caller, Desired, OperationKind
from backend.errors import ServiceError
from backend.ports import Directory
from backend.registry.database import Registry, among
from backend.registry.models import Lease, Operation, Server, now
from backend.settings import Settings
from backend.wishes import audit, policy
from backend.wishes.kick import Kick
from backend.wishes.lookup import Ask, permitted, unfinished

log = logging.getLogger(__name__)

MOST_LEASES: Final = 64
"""Of one server: enough for everybody's sessions, too few to fill a table."""
GRACE_SECONDS: Final = 900.0
"""After the API was away (an upgrade, a reboot), nobody could renew: a lease then has its own length again, but at most this."""
STEP_SECONDS: Final = 10.0
"""How much further than the time that passed here a clock may go between two looks, by being set right bit by bit."""
LATE_SECONDS: Final = 60.0
"""How much later than it should a look may come where the host is only busy."""


class AtEnd(enum.StrEnum):
    """What becomes of the server when its last lease is over."""

    KEEP = "keep"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class LeaseWish:
    """A lease as somebody wants it. ``seconds`` count by the service's clock, so that a job's clock need not be right."""

    seconds: int
    at_end: AtEnd
    note: str


class Leases:
    """What can be asked for. Nothing here waits for a tracking server."""

    def __init__(self, *, registry: Registry, directory: Directory, settings: Settings, kick: Kick) -> None:
        self._registry = registry
        self._directory = directory
        self._settings = settings
        self._kick = kick

    def hold(
        self, caller: Caller, group: str, env: str, lease_id: str, wish: LeaseWish, *, server_id: str | None = None, request_id: str | None
    ) -> Lease:
        """Take the lease, or renew one's own; ``server_id``: of that server alone. Errors: as ``policy.refusal``, ``no_such_server``,
        ``server_replaced``, ``server_deleting``, ``lease_of_other``, ``too_many_leases``.
        """
        ask = Ask(caller=caller, group=group, env=env, server_id=server_id)
        group_now = policy.group_now(caller, group, self._directory)
        with self._registry.session() as session:
            server, _ = permitted(session, ask, "lease", group_now=group_now, settings=self._settings)
            lease = session.get(Lease, (server.id, lease_id))
            if lease is None:
                self._check_count(session, server)
                lease = Lease(server_id=server.id, lease_id=lease_id, user=caller.user, uid=caller.uid, scheme=caller.scheme)
                session.add(lease)
                audit.record(session, caller=caller, action="lease", server=server, request_id=request_id)
            elif lease.user != caller.user:
                raise ServiceError("lease_of_other", id=lease_id, user=lease.user)
            lease.seconds, lease.at_end, lease.note = wish.seconds, wish.at_end, wish.note
            lease.until, lease.ended = now() + timedelta(seconds=wish.seconds), False
        return lease

    def end(self, caller: Caller, group: str, env: str, lease_id: str, *, request_id: str | None) -> list[Lease]:
        """End the lease; one that is not there has ended. The leases that are left. Errors: as ``hold``."""
        ask, group_now = Ask(caller=caller, group=group, env=env), policy.group_now(caller, group, self._directory)
        with self._registry.session() as session:
            server, _ = permitted(session, ask, "lease", group_now=group_now, settings=self._settings)
            lease = session.get(Lease, (server.id, lease_id))
            if lease is not None and not lease.ended:
                if lease.user != caller.user and not caller.admin:
                    raise ServiceError("lease_of_other", id=lease_id, user=lease.user)
                lease.ended, lease.until = True, now()
                audit.record(session, caller=caller, action="end_lease", server=server, request_id=request_id)
            session.flush()
            left = in_force(session, [server.id]).get(server.id, [])
        self._kick.send()
        return left

    @staticmethod
    def _check_count(session: Session, server: Server) -> None:
        if len(in_force(session, [server.id]).get(server.id, [])) >= MOST_LEASES:
            raise ServiceError("too_many_leases", count=MOST_LEASES)


def in_force(session: Session, server_ids: Sequence[str]) -> dict[str, list[Lease]]:
    """The leases that are not over, by server, the longest last: one query for all."""
    query = select(Lease).where(among(Lease.server_id, server_ids), Lease.ended.is_(False), Lease.until > now())
    found: dict[str, list[Lease]] = {}
    for lease in session.scalars(query.order_by(Lease.until, Lease.lease_id)):
        found.setdefault(lease.server_id, []).append(lease)
    return found


class Sweeper:
    """Draws the consequence of leases that are over: one transaction for each server, so a service that is killed does it again or not.

    ``can_renew`` tells whether leases can be renewed now. Only the time since it could counts against a lease; neither does time in which
    nothing ran here (a virtual machine that stood still, a service that was stopped), nor time by which the clock was set forward.
    ``every``: seconds between two sweeps, at most.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        can_renew: Callable[[], bool],
        every: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._can_renew = can_renew
        self._every = every
        self._clock = clock
        self._wall = wall
        self._swept_at: tuple[float, float] | None = None
        self._renewable_since: float | None = None

    def sweep(self) -> bool:
        """Look at all leases that are over. True when a stop was asked for: then the reconciler has work."""
        renewable_for = self._renewable_for()
        with self._registry.reading() as session:
            leases = session.scalars(select(Lease)).all()
            over = [lease.server_id for lease in leases if is_over(lease, renewable_for)]
            long = [(lease.server_id, lease.lease_id) for lease in leases if _is_long(lease)]
        for key in long:
            self._bound(key)
        stopped = [server_id for server_id in sorted(set(over)) if self._conclude(server_id, renewable_for)]
        return bool(stopped)

    def _bound(self, key: tuple[str, str]) -> None:
        """It holds for no longer than its length from now: by a clock that was ahead and is set right it would, for as far as that was."""
        with self._registry.session() as session:
            lease = session.get(Lease, key)
            if lease is not None and _is_long(lease):
                lease.until = now() + timedelta(seconds=lease.seconds)

    def _renewable_for(self) -> float:
        at, was_away = self._clock(), self._was_away()
        if not self._can_renew():
            self._renewable_since = None
            return 0.0
        if self._renewable_since is None or was_away:
            self._renewable_since = at
        return at - self._renewable_since

    def _was_away(self) -> bool:
        """Whether more time passed since the last look, by the clock on the wall or here, than passes while all is well."""
        at, before = (self._clock(), self._wall()), self._swept_at
        self._swept_at = at
        if before is None:
            return False
        passed, on_the_wall = at[0] - before[0], at[1] - before[1]
        away = passed > self._every + LATE_SECONDS or on_the_wall > passed + STEP_SECONDS
        if away:
            log.warning("the last look at leases was %.0f s ago, by the clock %.0f s: that counts against none", passed, on_the_wall)
        return away

    def _conclude(self, server_id: str, renewable_for: float) -> bool:
        with self._registry.session() as session:
            server = session.get(Server, server_id, with_for_update=True)
            if server is None or unfinished(session, [server_id]):
                return False  # what is under way ends first; the next sweep looks again
            leases = session.scalars(select(Lease).where(Lease.server_id == server_id)).all()
            over = [lease for lease in leases if is_over(lease, renewable_for)]
            if not over:
                return False
            last = max(over, key=lambda lease: (lease.until, lease.lease_id)) if len(over) == len(leases) else None
            for lease in over:
                session.delete(lease)
            if last is None or last.at_end != AtEnd.STOP or server.desired != Desired.RUNNING or server.deleted_at is not None:
                return False
            if _was_asked_for(session, server, last.until):
                return False
            _ask_for_stop(session, server, last)
        log.info("server %s: its last lease (%s of %s) is over, so it is stopped", server_id, last.lease_id, last.user)
        return True


def _is_long(lease: Lease) -> bool:
    return lease.until > now() + timedelta(seconds=lease.seconds + STEP_SECONDS)


def is_over(lease: Lease, renewable_for: float) -> bool:
    """Whether the lease was ended, or ran out although its holder could have renewed it."""
    if lease.ended:
        return True
    return lease.until <= now() and renewable_for >= min(float(lease.seconds), GRACE_SECONDS)


def _was_asked_for(session: Session, server: Server, since: datetime) -> bool:
    """Whether somebody asked for a start since then, who saw nothing any more of a lease that is over: theirs is the newer wish. One of a
    time to come was asked for before, by a clock that was ahead.
    """
    starts = select(Operation.id).where(Operation.server_id == server.id, Operation.kind == OperationKind.START)
    return session.scalars(starts.where(Operation.created_at > since, Operation.created_at <= now()).limit(1)).first() is not None


def _ask_for_stop(session: Session, server: Server, lease: Lease) -> None:
    operation = Operation.asked(server, OperationKind.STOP, by=lease.user)
    server.desired = Desired.STOPPED
    session.add(operation)
    holder = Caller(user=lease.user, uid=lease.uid, groups=(), scheme=lease.scheme)
    audit.record(session, caller=holder, action="stop_at_lease_end", server=server, operation=operation)
