"""What the command says of each kind of failure: one sentence with what, why and the cure."""

from __future__ import annotations

import sqlite3

from mlwf.errors import with_cure
from sqlalchemy.exc import OperationalError

from backend.cli.language import _
from backend.errors import ServiceError
from backend.i18n import spoken
from backend.keyring import KeyringError
from backend.messages import describe


class CommandError(Exception):
    """A failure of a command, already told in one sentence."""


def sentence(error: Exception) -> str | None:
    """The sentence; None for what nobody foresaw."""
    if isinstance(error, ServiceError):
        told = describe(error.code, error.params, spoken())
        return with_cure(told["detail"], told["cure"])
    if isinstance(error, CommandError | KeyringError):
        return str(error)
    if isinstance(error, OperationalError) and isinstance(error.orig, sqlite3.OperationalError):
        return _(
            "the registry cannot be used ({why}); run `aihub init` first, and run this as the service's account or as root",
            why=str(error.orig),
        )
    if isinstance(error, PermissionError):
        path = error.filename or _("a file")
        return _("{path} may not be used by this account; run this as the service's account or as root", path=path)
    return None
