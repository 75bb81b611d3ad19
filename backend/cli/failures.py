"""What the command says of each kind of failure: one sentence with what, why and the cure."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import OperationalError

from backend.errors import ServiceError
from backend.keyring import KeyringError
from backend.messages import describe


class CommandError(Exception):
    """A failure of a command, already told in one sentence."""


def sentence(error: Exception) -> str | None:
    """The sentence; None for what nobody foresaw."""
    if isinstance(error, ServiceError):
        told = describe(error.code, error.params, "en")
        return f"{told['detail'].rstrip('.')}. {told['cure']}"
    if isinstance(error, CommandError | KeyringError):
        return str(error)
    if isinstance(error, OperationalError) and isinstance(error.orig, sqlite3.OperationalError):
        return f"the registry cannot be used ({error.orig}); run `aihub init` first, and run this as the service's account or as root"
    if isinstance(error, PermissionError):
        return f"{error.filename or 'a file'} may not be used by this account; run this as the service's account or as root"
    return None
