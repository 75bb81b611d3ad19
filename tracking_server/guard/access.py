"""Who may in, by every scheme, kept in step with the files of `config/` that say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tracking_server import layout
from tracking_server.guard.access_files import AccessFileError, parse_revoked, parse_ticket_keys, parse_tokens
from tracking_server.guard.identity import BasicScheme, BearerScheme, Scheme, SessionScheme
from tracking_server.guard.loop import Loop
from tracking_server.guard.sessions import Sessions
from tracking_server.guard.spent import Spent
from tracking_server.guard.users import UsersError, parse_users
from tracking_server.guard.verifier import Verifier
from tracking_server.settings import Settings

T = TypeVar("T")


class Access:
    """`files` are to be watched, each with the call that takes it over or says why it cannot. Runs in `run/`."""

    def __init__(self, loop: Loop, box: layout.Box, *, settings: Callable[[], Settings], log: Callable[[str], None]) -> None:
        self._box = box
        self._log = log
        self._verifier = Verifier(loop)
        self._bearer = BearerScheme()
        self.sessions = Sessions(settings, Spent(Path(layout.SPENT), now=time.time()))
        self.files: dict[Path, Callable[[], str | None]] = {
            box.users: self._read_users,
            box.ticket_keys: lambda: self._read(box.ticket_keys, parse_ticket_keys, self.sessions.set_keys, "ticket keys"),
            box.tokens: lambda: self._read(box.tokens, parse_tokens, self._bearer.set_tokens, "tokens"),
            box.revoked: lambda: self._read(box.revoked, parse_revoked, self.sessions.set_revoked, "people who left"),
        }
        self._users = 0
        # A browser may send the portal's own password with each request: the cookie must be looked at first.
        self.schemes: tuple[Scheme, ...] = (SessionScheme(self.sessions), self._bearer, BasicScheme(self._verifier))

    def closed(self) -> bool:
        """Whether nobody gets in, by a password, cookie, ticket or token: no user is registered."""
        return self._users == 0

    def _read_users(self) -> str | None:
        return self._read(self._box.users, parse_users, self._set_users, "users")

    def _set_users(self, users: Mapping[str, bytes]) -> None:
        self._users = len(users)
        self._verifier.set_users(users)

    def _read(self, path: Path, parse: Callable[[bytes], dict[str, T]], use: Callable[[dict[str, T]], None], what: str) -> str | None:
        """A file that is not there is an empty one; what cannot be used leaves the last good one in force, and is said."""
        try:
            found = parse(path.read_bytes())
        except FileNotFoundError:
            found = {}
        except (OSError, UsersError, AccessFileError) as error:
            return f"the {what} stay as they were: {error}"
        use(found)
        self._log(f"{len(found)} {what}")
        return None
