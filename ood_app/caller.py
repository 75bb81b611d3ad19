"""What the console does as the caller, with the caller's own rights: it is the caller's process."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from flask import g
from mlwf.i18n import use_language
from mlwf.user import User

from mlwf import auth_file, aws_profiles
from ood_app.problems import Problem
from ood_app.texts import _


def profiles() -> list[str]:
    """Names of the profiles in the caller's AWS credentials file that hold a key pair. Raises MlwfError."""
    with use_language(g.language):
        return aws_profiles.profile_names()


def key_pair(profile: str) -> aws_profiles.KeyPair:
    """The key pair of a profile. Raises MlwfError."""
    with use_language(g.language):
        return aws_profiles.key_pair(profile)


def read_users(path: str) -> list[User]:
    """The users in a server's auth file. Raises Problem `auth_file_missing` where there is none yet, else MlwfError."""
    with use_language(g.language):
        try:
            return auth_file.read_auth_file(Path(path))
        except auth_file.AuthFileError as error:
            if not error.missing:
                raise
            raise Problem(
                404,
                "auth_file_missing",
                _("There is no file {path} yet.").format(path=path),
                _("Create it with this content, or let the console create it."),
                extra={"path": path, "template": "{'user_name': 'USER_NAME', 'pass': 'PASSWORD'}"},
            ) from error


def open_to_all(path: str) -> bool:
    """Whether everybody on the system may read the file; unknown counts as no."""
    try:
        return auth_file.open_to_all(Path(path))
    except OSError:
        return False


def create_auth_file(path: str, user_name: str, gid: int | None) -> None:
    """Writes the group's new auth file with a generated password, which stays in it. Raises Problem where there is one, else MlwfError."""
    with use_language(g.language):
        try:
            auth_file.generate_auth_file(Path(path), user_name, gid)
        except FileExistsError:
            detail = _("There is a file {path} already; it was left as it is.").format(path=path)
            raise Problem(409, "auth_file_exists", detail, _("Register it, or edit it yourself.")) from None


@dataclass(frozen=True)
class GroupChange:
    """How this process' groups, fixed when the portal started the user's web server, differ from what the directory says now."""

    joined: tuple[str, ...]
    left: tuple[str, ...]


def group_change() -> GroupChange:
    """Groups that the caller joined or left since this process' parent was started."""
    me = pwd.getpwuid(os.getuid())
    held = {*os.getgroups(), os.getgid()}
    now = set(os.getgrouplist(me.pw_name, me.pw_gid))
    return GroupChange(joined=_names(now - held), left=_names(held - now))


def _names(gids: set[int]) -> tuple[str, ...]:
    return tuple(sorted(_name(gid) for gid in gids))


def _name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
