"""What a site bounds for a group: how many servers it has."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.errors import ServiceError
from backend.registry.models import Server
from backend.settings import Settings


def check_servers(session: Session, settings: Settings, group: str) -> None:
    """Within the transaction that gives the group one more. Error: ``too_many_servers``."""
    most = settings.max_servers_per_group
    if most == 0:
        return
    count = session.scalar(select(func.count()).where(Server.group_name == group, Server.deleted_at.is_(None))) or 0
    if count >= most:
        raise ServiceError("too_many_servers", group=group, count=count)
