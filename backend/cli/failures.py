"""What the command says of each kind of failure: one sentence with what, why and the cure."""

from __future__ import annotations

import sqlite3
from typing import Final

from mlwf.errors import with_cure
from mlwf.streams import no_room
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from backend.cli.language import _
from backend.errors import ServiceError
from backend.i18n import spoken
from backend.messages import describe
from backend.networks.firewall import FirewallError
from backend.registry.keyring import KeyringError

_PRIMARY: Final = 0xFF
"""What SQLite calls the kind of an error, in its whole code."""


class CommandError(Exception):
    """A failure of a command, already told in one sentence."""


def sentence(error: Exception) -> str | None:
    """The sentence; None for what nobody foresaw."""
    if isinstance(error, ServiceError):
        told = describe(error.code, error.params, spoken())
        return with_cure(told["detail"], told["cure"])
    if isinstance(error, CommandError | FirewallError | KeyringError):
        return str(error)
    if isinstance(error, DBAPIError):
        return _of_registry(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "psycopg":
        return _("the driver of PostgreSQL is not installed; install the service with `--extra postgresql`, or correct database_url")
    if isinstance(error, PermissionError):
        path = error.filename or _("a file")
        return _("{path} may not be used by this account; run this as the service's account or as root", path=path)
    return no_room(error)


def _of_registry(error: DBAPIError) -> str | None:
    """What a database that is away or ill says: its own words, which hold no password and are several lines of PostgreSQL's. What a mistake
    of ours makes it say is not foreseen.
    """
    why = " ".join(str(error.orig).split())
    if getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_IOERR:
        return _("the registry cannot be used ({why}); check its disk (the host's log says more) and the account's quota", why=why)
    if isinstance(error.orig, sqlite3.OperationalError):
        return _("the registry cannot be used ({why}); run `aihub init` first, and run this as the service's account or as root", why=why)
    if type(error.orig) is sqlite3.DatabaseError:  # exactly: that is how it says that a file is damaged, or none of its own
        return _(
            "the registry cannot be used ({why}); its file is damaged: stop the service and put a backup back (`aihub restore`)", why=why
        )
    if isinstance(error, OperationalError | ProgrammingError) and not isinstance(error.orig, sqlite3.Error):
        return _("the registry cannot be used ({why}); start its database, or correct database_url, then run `aihub init`", why=why)
    return None
