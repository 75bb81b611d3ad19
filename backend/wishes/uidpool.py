"""Uids: each tracking server in containers has two of its own for life (gate's, and the next one: mlflow's)."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.errors import ServiceError
from backend.registry.models import Server
from backend.settings import Settings

PER_SERVER = 2


def allocate(session: Session, settings: Settings) -> int | None:
    """The first of two uids that no server has, deleted ones that can be restored included; None where servers run as the service's own
    account. Within the caller's writing transaction. Error: ``uids_exhausted``.

    Both are looked at: the settings may have begun the range at another uid when a server got its own.
    """
    if settings.runtime != "docker":
        return None
    firsts = session.scalars(select(Server.uid).where(Server.uid.is_not(None)))
    taken = {uid for first in firsts for uid in pair(first) or ()}
    for first in range(settings.uid_first, settings.uid_last, PER_SERVER):
        if taken.isdisjoint((first, first + 1)):
            return first
    raise ServiceError("uids_exhausted", range=f"{settings.uid_first}-{settings.uid_last}")


def pair(uid: int | None) -> tuple[int, int] | None:
    """Gate's and mlflow's."""
    return None if uid is None else (uid, uid + 1)
