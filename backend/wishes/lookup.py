"""The server that somebody asks about: by its name, where they may; what is under way on it, and what was done a moment ago."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.domain import UNFINISHED, Caller, Desired, OperationKind, OperationState
from backend.errors import ServiceError
from backend.registry.database import among
from backend.registry.models import Operation, Server, now
from backend.settings import Settings
from backend.wishes import policy

SAME_SECONDS: Final = 60.0
"""For how long who asks for what is so already is answered with the same operation."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Who asks for something on which server. ``server_id``: that one alone; None: whichever has that name now, and of several deleted ones
    the latest.
    """

    caller: Caller
    group: str
    env: str
    server_id: str | None = None
    request_id: str | None = None


def permitted(
    session: Session, ask: Ask, action: policy.Action, *, group_now: int | None, settings: Settings, lock: bool = True
) -> tuple[Server, Operation | None]:
    """The server, on which the caller may do that now, and the operation under way on it. ``group_now``: ``policy.group_now``; ``lock``: as
    for ``find``. Errors: ``not_a_member``, ``no_such_server``, ``server_replaced``, ``nothing_to_restore``, as ``taken``, and as
    ``policy.refusal``.
    """
    deleted = action in policy.OF_DELETED
    server = find(session, ask.group, ask.env, deleted=deleted, server_id=ask.server_id, lock=lock)
    under_way = unfinished(session, [server.id]).get(server.id) if server else None
    if action == OperationKind.RESTORE and under_way is None:  # its first step makes a deleted one a live one
        live = find(session, ask.group, ask.env, server_id=ask.server_id, lock=lock)
        begun = unfinished(session, [live.id]).get(live.id) if live else None
        server, under_way = (live, begun) if begun is not None and begun.kind == action else (server, None)
    if server is None:
        raise _namesake(session, ask, deleted=deleted) or not_there(ask.caller, ask.group, ask.env, deleted=deleted)
    situation = policy.Situation(group_now=group_now, under_way=under_way)
    refused = policy.refusal(ask.caller, server, action, settings=settings, situation=situation)
    if refused is not None:
        raise refused
    return server, under_way


def _namesake(session: Session, ask: Ask, *, deleted: bool) -> ServiceError | None:
    """The failure where the caller means a server by its id, and sees one of its name: another one, in place of one that is there no more;
    or, where a deleted one is meant, perhaps the same, which somebody restored.
    """
    namesake = find(session, ask.group, ask.env) if ask.server_id is not None else None
    if namesake is None or not policy.is_visible(ask.caller, namesake):
        return None
    return taken(namesake) if deleted else ServiceError("server_replaced", group=ask.group, env_name=ask.env)


def find(
    session: Session, group: str, env: str, *, deleted: bool = False, server_id: str | None = None, lock: bool = False
) -> Server | None:
    """The server of that name; with ``deleted`` the one of those that still wait for their purge that has that id, or else the latest.
    ``lock``: until the transaction's end, where the database knows locks of rows (SQLite lets one writer in at a time).
    """
    query = select(Server).where(Server.group_name == group, Server.env_name == env)
    if server_id is not None:
        query = query.where(Server.id == server_id)
    if deleted:
        query = query.where(Server.deleted_at.is_not(None)).order_by(Server.deleted_at.desc()).limit(1)
    else:
        query = query.where(Server.deleted_at.is_(None))
    return session.scalars(query.with_for_update() if lock else query).first()


def taken(namesake: Server) -> ServiceError:
    """Why no other server can have its name: it is there, or not yet gone."""
    if namesake.desired == Desired.ABSENT:
        return ServiceError("server_deleting")
    return ServiceError("server_exists", group=namesake.group_name, env_name=namesake.env_name)


def unfinished(session: Session, server_ids: Sequence[str]) -> dict[str, Operation]:
    """The operation that is under way on each of those servers, where there is one: one query for all."""
    query = select(Operation).where(among(Operation.server_id, server_ids), Operation.state.in_(UNFINISHED))
    return {str(operation.server_id): operation for operation in session.scalars(query)}


def done_already(session: Session, operation: Operation) -> Operation:
    """The operation, which changes nothing and so is not in the audit, has succeeded. Who asks in a loop gets the one of the last minute
    again, and fills no table.
    """
    same = select(Operation).where(
        Operation.server_id == operation.server_id,
        Operation.kind == operation.kind,
        Operation.requested_by == operation.requested_by,
        Operation.state == OperationState.SUCCEEDED,
        Operation.finished_at > now() - timedelta(seconds=SAME_SECONDS),
    )
    found = session.scalars(same.order_by(Operation.finished_at.desc()).limit(1)).first()
    if found is not None:
        return found
    operation.state, operation.finished_at = OperationState.SUCCEEDED, now()
    session.add(operation)
    return operation


def not_there(caller: Caller, group: str, env: str, *, deleted: bool = False) -> ServiceError:
    """Why nothing is found: a stranger to the group does not learn what it has."""
    if not caller.admin and caller.group(group) is None:
        return ServiceError("not_a_member", user=caller.user, group=group)
    return ServiceError("nothing_to_restore" if deleted else "no_such_server", group=group, env_name=env)
