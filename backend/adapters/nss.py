"""Users and groups of the site, as the host's name service (NSS) knows them now. An error of it denies and says so.

glibc is asked directly: Python's ``pwd`` and ``grp`` tell "there is no such user" and "the directory did not answer" alike, and a site
whose LDAP is away for a minute must not look as if everybody had left. Nothing is remembered here: nscd or sssd do that, where the site
wants it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from backend.domain import Caller, Group
from backend.errors import ServiceError

T = TypeVar("T")
_FIRST_BUFFER: Final = 16384
_LAST_BUFFER: Final = 64 * 1024 * 1024
_NOT_FOUND: Final = frozenset({0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM})
"""What getpwnam_r(3) answers for "not found", which POSIX does not call an error."""


@dataclass(frozen=True, kw_only=True)
class UserEntry:
    """A line of passwd."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class GroupEntry:
    """A line of group."""

    name: str
    gid: int
    members: tuple[str, ...]


class NameService(Protocol):
    """What is asked of NSS. None: there is no such entry. ``OSError``: it did not answer."""

    def user(self, key: str | int) -> UserEntry | None: ...
    def group(self, key: str | int) -> GroupEntry | None: ...
    def group_ids(self, user: UserEntry) -> Sequence[int]: ...


class Nss:
    """The port ``Directory`` on the name service."""

    def __init__(self, *, admin_group: str, names: NameService | None = None) -> None:
        self._admin_group = admin_group
        self._names: NameService = names or Glibc()

    def caller(self, *, uid: int) -> Caller:
        """Who that uid is. Groups without a name are left out. Errors: ``caller_unknown``, ``directory_failed``."""
        entry = self._ask(self._names.user, uid)
        if entry is None:
            raise ServiceError("caller_unknown", uid=uid)
        ids = self._ask(self._names.group_ids, entry)
        found = [self._ask(self._names.group, gid) for gid in sorted(set(ids))]
        groups = tuple(Group(name=group.name, gid=group.gid) for group in found if group is not None)
        admin = uid == 0 or any(group.name == self._admin_group for group in groups)
        return Caller(user=entry.name, uid=uid, groups=groups, admin=admin)

    def uid_of(self, *, user: str) -> int | None:
        """The uid of that user. Error: ``directory_failed``."""
        entry = self._ask(self._names.user, user)
        return None if entry is None else entry.uid

    def group(self, *, name: str) -> Group | None:
        """The group of that name now. Error: ``directory_failed``."""
        entry = self._ask(self._names.group, name)
        return None if entry is None else Group(name=entry.name, gid=entry.gid)

    def is_member(self, *, user: str, gid: int) -> bool:
        """Whether that user is in that group now. The group is looked up too, since a list of ids hides an error. ``directory_failed``."""
        entry = self._ask(self._names.user, user)
        if entry is None:
            return False
        group = self._ask(self._names.group, gid)
        listed = group is not None and user in group.members
        return listed or entry.gid == gid or gid in self._ask(self._names.group_ids, entry)

    def members(self, *, group: Group) -> Sequence[str]:
        """The members that the group's entry lists; empty for a group that is gone. Error: ``directory_failed``."""
        entry = self._ask(self._names.group, group.gid)
        return () if entry is None else entry.members

    def _ask(self, question: Callable[[Any], T], key: object) -> T:
        try:
            return question(key)
        except OSError as error:
            raise ServiceError("directory_failed", why=error.strerror or type(error).__name__) from error


class _Passwd(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


class _GroupLine(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("gid", ctypes.c_uint32),
        ("members", ctypes.POINTER(ctypes.c_char_p)),
    )


class Glibc:
    """The name service by glibc's reentrant calls, which say an error apart from "not found"."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)

    def user(self, key: str | int) -> UserEntry | None:
        """By name or uid."""
        found = self._look_up("getpwuid_r" if isinstance(key, int) else "getpwnam_r", key, _Passwd)
        if found is None:
            return None
        line, _buffer = found
        return UserEntry(name=os.fsdecode(line.name), uid=line.uid, gid=line.gid)

    def group(self, key: str | int) -> GroupEntry | None:
        """By name or gid."""
        found = self._look_up("getgrgid_r" if isinstance(key, int) else "getgrnam_r", key, _GroupLine)
        if found is None:
            return None
        line, _buffer = found
        members: list[str] = []
        while line.members and (name := line.members[len(members)]) is not None:
            members.append(os.fsdecode(name))
        return GroupEntry(name=os.fsdecode(line.name), gid=line.gid, members=tuple(members))

    def group_ids(self, user: UserEntry) -> Sequence[int]:
        """All groups of a user, the primary one included."""
        return os.getgrouplist(user.name, user.gid)

    def _look_up(self, call: str, key: str | int, kind: type[Any]) -> tuple[Any, object] | None:
        """The line and the buffer in which its texts lie (it must outlive them)."""
        argument = ctypes.c_uint32(key) if isinstance(key, int) else ctypes.c_char_p(_name(key))
        size = _FIRST_BUFFER
        while True:
            line, buffer, result = kind(), ctypes.create_string_buffer(size), ctypes.c_void_p()
            status = getattr(self._libc, call)(argument, ctypes.byref(line), buffer, ctypes.c_size_t(size), ctypes.byref(result))
            if status == errno.ERANGE and size < _LAST_BUFFER:  # a group with many members
                size *= 4
            elif status not in _NOT_FOUND:
                raise OSError(status, os.strerror(status))
            else:
                return (line, buffer) if result else None


def _name(text: str) -> bytes:
    """A name as the C library takes it; what cannot be one (a NUL, a lone surrogate) is looked up as the empty name, which nobody has."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return b""
    return b"" if b"\0" in encoded else encoded
