"""Who may know a server's password, and who of them left the group; and groups that are not what they were.

The password lies in a file that the group's members can read. So everybody is taken to know it who was a member at any time since
it was set: those whom NSS lists, and callers who were seen as members (NSS need not list primary members).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm.attributes import flag_modified

from backend.domain import Caller, Group
from backend.errors import ServiceError
from backend.ports import Directory
from backend.registry.database import Registry, among
from backend.registry.models import ALONE, Server

log = logging.getLogger(__name__)


def members_now(directory: Directory, server: Server) -> Sequence[str]:
    """The members that NSS lists for the server's group; nobody where that name is another group now. Error: ``directory_failed``."""
    group = directory.group(name=server.group_name)
    if group is None or group.gid != server.gid:
        return ()
    return directory.members(group=group)


def changed_group(directory: Directory, server: Server) -> ServiceError | None:
    """The failure ``group_changed`` where the server's group has another id now, or is gone. Error: ``directory_failed``."""
    group = directory.group(name=server.group_name)
    if group is not None and group.gid == server.gid:
        return None
    return ServiceError("group_changed", group=server.group_name, now="none" if group is None else group.gid, then=server.gid)


def saw(registry: Registry, servers: Iterable[Server], caller: Caller) -> None:
    """Note that the caller, who is a member now, may know the passwords of those servers. Writes once per caller and password; a full disk
    keeps nobody from looking.
    """
    fresh = [server.id for server in servers if _may_know(server, caller) and caller.user not in server.known_to]
    if not fresh:
        return
    try:
        with registry.session() as session:
            for row in session.scalars(select(Server).where(among(Server.id, fresh)).options(ALONE)):
                if _may_know(row, caller) and caller.user not in row.known_to:
                    row.known_to = sorted({*row.known_to, caller.user})
                    flag_modified(row, "updated_at")  # nobody changed the server: it keeps its time
    except ServiceError as error:
        log.warning("that %s may know passwords is noted at the next look: %s", caller.user, error)


def _may_know(server: Server, caller: Caller) -> bool:
    group = caller.group(server.group_name)
    return bool(server.users) and server.deleted_at is None and group is not None and group.gid == server.gid


def update_all(registry: Registry, directory: Directory) -> None:
    """Bring ``known_to`` and ``former_members`` of every server up to date. What NSS does not answer stays as it is."""
    view = View(directory)
    with registry.reading() as session:
        servers = session.scalars(select(Server).where(Server.deleted_at.is_(None)).options(ALONE)).all()
    for server in servers:
        if not server.users and not server.former_members:
            continue
        try:
            present = view.present(server)
            gone = {user for user in server.known_to if user not in present and not view.is_member(user, server.gid)}
        except ServiceError as error:
            log.warning("server %s: members are not known now: %s", server.id, error)
            continue
        _write(registry, server, present=present, gone=gone)


class View:
    """NSS as it is during one pass: each question is asked once, but for one that it does not answer."""

    def __init__(self, directory: Directory) -> None:
        self.group = lru_cache(maxsize=None)(lambda name: directory.group(name=name))
        self.members = lru_cache(maxsize=None)(lambda group: frozenset(directory.members(group=group)))
        self.is_member = lru_cache(maxsize=None)(lambda user, gid: directory.is_member(user=user, gid=gid))

    def present(self, server: Server) -> frozenset[str]:
        group: Group | None = self.group(server.group_name)
        return self.members(group) if group is not None and group.gid == server.gid else frozenset()


def _write(registry: Registry, server: Server, *, present: frozenset[str], gone: set[str]) -> None:
    """Written only where it differs. The row may have changed since: a new password clears the list, and its own members were noted."""
    if set(server.known_to) >= present and set(server.former_members) == gone:
        return
    with registry.session() as session:
        row = session.get(Server, server.id)
        if row is None or row.users_updated_at != server.users_updated_at:
            return
        row.known_to = sorted({*row.known_to, *present})
        row.former_members = sorted(gone)
        flag_modified(row, "updated_at")  # nobody changed the server: it keeps its time
