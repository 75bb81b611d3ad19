"""What a site bounds for a group, by its name and gid: its servers, and the deleted ones that are kept for it, which hold ports too.

What another group of that name had counts for nothing: its members can neither see nor delete that.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from backend.domain import UNFINISHED, Group, OperationKind
from backend.errors import ServiceError
from backend.files import disk
from backend.registry.models import Operation, Server
from backend.settings import Settings


def check_create(session: Session, settings: Settings, group: Group) -> None:
    """Within the transaction that makes one. A server that is made may be deleted, so there must be room to keep it.

    Errors: ``too_many_servers``, ``too_many_kept``, ``host_short_of_disk``.
    """
    check_restore(session, settings, group)
    most = settings.max_kept_per_group
    kept = _count(session, group, Server.deleted_at.is_not(None))
    if most and kept >= most:
        raise ServiceError("too_many_kept", group=group.name, count=kept)


def check_restore(session: Session, settings: Settings, group: Group) -> None:
    """Within the transaction that gives the group one more. Errors: ``too_many_servers``, ``host_short_of_disk``."""
    disk.check_room(settings)
    most = settings.max_servers_per_group
    coming = select(Operation.server_id).where(Operation.kind == OperationKind.RESTORE, Operation.state.in_(UNFINISHED))
    count = _count(session, group, or_(Server.deleted_at.is_(None), Server.id.in_(coming)))
    if most and count >= most:
        raise ServiceError("too_many_servers", group=group.name, count=count)


def _count(session: Session, group: Group, those: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(Server.group_name == group.name, Server.gid == group.gid, those)) or 0
