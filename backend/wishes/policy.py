"""Who may do what to which server. One function answers it, for the request that asks and for the list of what is allowed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from backend.domain import Caller, Desired, Group, OperationKind
from backend.errors import ServiceError
from backend.ports import Directory
from backend.registry.models import Operation, Server, now
from backend.settings import Settings

Action = OperationKind | Literal["see", "lease", "enter", "revoke"]
"""What can be done to a server; ``revoke``: another's token."""
Offered = Literal[
    OperationKind.START,
    OperationKind.STOP,
    OperationKind.DELETE,
    OperationKind.RESTORE,
    OperationKind.USERS,
    OperationKind.STORAGE,
    OperationKind.RESIZE,
    OperationKind.UPGRADE,
    OperationKind.ROLLBACK,
]
"""What is said of each server, whether its reader may do it."""
OFFERED: Final[tuple[Offered, ...]] = get_args(Offered)
ADMINS: Final = "the service's admins"
_OF_ALL_MEMBERS: Final = frozenset[Action]({"see", OperationKind.START, OperationKind.STOP, "lease", "enter"})
_ON_FROZEN: Final = frozenset[Action]({"see", OperationKind.STOP, OperationKind.DELETE, OperationKind.PURGE})
_EACH_ANOTHER: Final = frozenset[Action]({OperationKind.USERS, OperationKind.STORAGE, OperationKind.RESIZE, OperationKind.UPGRADE})
"""What may say something else each time that it is asked for, and so is not the same as what is under way."""
OF_DELETED: Final = frozenset[Action]({OperationKind.RESTORE, OperationKind.PURGE})
"""What is asked of a server that was deleted."""
_WHATEVER_IS_UNDER_WAY: Final = frozenset[Action]({"lease", "enter", "revoke"})
"""An operation says nothing about who may in, or who vouches for the server."""
_WHILE_DELETING: Final = frozenset[Action]({"see", OperationKind.DELETE, "enter", "revoke"})
"""Nothing that could start a server of which the database is gone already, or write to its folder. Who may in stays as it is: a restore
brings that back, too.
"""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What must be known besides the row: the gid that the server's group name has now (None: no such group), what is under way."""

    group_now: int | None
    under_way: Operation | None = None


def is_offered(settings: Settings, group: str) -> bool:
    """Whether groups of that name may have servers at this site."""
    return any(fnmatch.fnmatchcase(group, pattern) for pattern in settings.allowed_groups)


def offered_groups(caller: Caller, settings: Settings) -> list[Group]:
    """The caller's groups that may have servers."""
    return [group for group in caller.groups if is_offered(settings, group.name)]


def may_create(caller: Caller, settings: Settings) -> bool:
    """Whether the site lets this caller create, in a group that it is a member of."""
    return caller.admin or settings.create_by == "members"


def check_create(caller: Caller, group: str, settings: Settings, directory: Directory) -> Group:
    """The group in which the caller may create a server. Errors: ``not_a_member``, ``group_not_offered``, ``not_allowed``, and
    ``directory_failed``: a caller's groups are a list that hides what the directory could not say.
    """
    found = caller.group(group)
    named = found or directory.group(name=group)
    if found is None and caller.admin:
        found = named
    if found is None:
        raise ServiceError("not_a_member", user=caller.user, group=group)
    if not is_offered(settings, group):
        raise ServiceError("group_not_offered", group=group)
    if not may_create(caller, settings):
        raise ServiceError("not_allowed", who=ADMINS)
    return found


def is_visible(caller: Caller, server: Server) -> bool:
    """Whether the caller may know of it: an admin, or a member of the group with that gid. A name alone may be another group's by now."""
    return caller.admin or server.gid in caller.gids


def unseen(caller: Caller, server: Server) -> ServiceError | None:
    """Why the caller may not know of the server: ``group_changed`` where a group of the caller's has its group's name, but not its gid;
    None when it may.
    """
    if is_visible(caller, server):
        return None
    namesake = caller.group(server.group_name)
    if namesake is not None:
        return ServiceError("group_changed", group=server.group_name, now=namesake.gid, then=server.gid)
    return ServiceError("not_a_member", user=caller.user, group=server.group_name)


def groups_now(caller: Caller, names: Iterable[str], directory: Directory) -> Mapping[str, int | None]:
    """The gid that each name has now. The caller's own groups are known; NSS is asked once for each other."""
    own = {group.name: group.gid for group in caller.groups}
    found: dict[str, int | None] = {}
    for name in set(names):
        group = None if name in own else directory.group(name=name)
        found[name] = own.get(name, group.gid if group else None)
    return found


def group_now(caller: Caller, name: str, directory: Directory) -> int | None:
    """Likewise of one name. To be asked before a transaction begins: NSS may take its time."""
    return groups_now(caller, [name], directory)[name]


def refusal(caller: Caller, server: Server, action: Action, *, settings: Settings, situation: Situation) -> ServiceError | None:
    """Why the caller may not do that to the server now; None when it may."""
    hidden = unseen(caller, server)
    if hidden is not None:
        return hidden
    frozen = situation.group_now != server.gid
    if frozen and not (action == "see" or (caller.admin and action in _ON_FROZEN)):
        now = "none" if situation.group_now is None else situation.group_now
        return ServiceError("group_changed", group=server.group_name, now=now, then=server.gid)
    if not _site_lets(caller, action, settings):
        return ServiceError("not_allowed", who=ADMINS)
    return _refusal_by_state(server, action, situation)


def allowed(caller: Caller, server: Server, *, settings: Settings, situation: Situation) -> list[Offered]:
    """What the caller may do to the server now."""
    return [action for action in OFFERED if refusal(caller, server, action, settings=settings, situation=situation) is None]


def _site_lets(caller: Caller, action: Action, settings: Settings) -> bool:
    if caller.admin or action in _OF_ALL_MEMBERS:
        return True
    return action != OperationKind.PURGE and settings.manage_by == "members"


def _refusal_by_state(server: Server, action: Action, situation: Situation) -> ServiceError | None:
    names = {"group": server.group_name, "env_name": server.env_name}
    busy = situation.under_way
    if action == "see" or (action == OperationKind.RESTORE and busy is not None and busy.kind == action):
        return None
    if (server.deleted_at is not None) != (action in OF_DELETED):
        return ServiceError("nothing_to_restore" if action in OF_DELETED else "no_such_server", **names)
    if server.deleted_at is None and server.desired == Desired.ABSENT and action not in _WHILE_DELETING:
        return ServiceError("server_deleting")
    if busy is not None and action not in _WHATEVER_IS_UNDER_WAY:
        return ServiceError("server_busy", kind=busy.kind) if busy.kind != action or action in _EACH_ANOTHER else None
    if action == OperationKind.ROLLBACK and (server.previous_until is None or server.previous_until <= now()):
        return ServiceError("nothing_to_roll_back", **names)
    return None
