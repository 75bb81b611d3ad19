"""Who comes in without a password: tickets for the portal's users, bearer tokens for jobs, and the end of both for who left the group.

What is asked for is a row; the reconciler writes it into the box and notes when the box has taken it over (``told``). Nothing here waits.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mlwf.secret import Secret
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.domain import Caller, Status, new_token_id
from backend.errors import ServiceError
from backend.ports import Directory
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Server, Token, Visit, now
from backend.settings import Settings
from backend.wishes import audit, policy, tickets
from backend.wishes.kick import Kick
from backend.wishes.lookup import Ask, find, not_there, permitted

MOST_TOKENS: Final = 100
"""In force, of one user on one server."""
REMEMBERED_DAYS: Final = 7
"""For how long a token that is over is still listed. Of one user on one server, hardly more than ``MOST_TOKENS``: jobs that each make one
would leave thousands, and each look at the server reads them.
"""
_UP: Final = (Status.RUNNING, Status.SLEEPING)


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A ticket, and where the browser posts it."""

    text: Secret
    user: str
    expires_at: datetime
    sign_in_url: str


class Access:
    """What can be asked for. Every method also raises as ``policy.refusal`` says, ``no_such_server`` and ``directory_failed``."""

    def __init__(self, *, registry: Registry, directory: Directory, settings: Settings, keyring: Keyring, kick: Kick) -> None:
        self._registry = registry
        self._directory = directory
        self._settings = settings
        self._keyring = keyring
        self._kick = kick

    def ticket(self, caller: Caller, group: str, env: str, *, request_id: str | None) -> Ticket:
        """A ticket for the caller. Errors: ``no_portal``, ``server_not_up``, ``auth_info_missing``."""
        portal = (self._settings.portal_url or "").rstrip("/")
        if not portal:
            raise ServiceError("no_portal")
        ask, group_now = Ask(caller=caller, group=group, env=env), policy.group_now(caller, group, self._directory)
        at = now()
        with self._registry.session() as session:
            server, _ = permitted(session, ask, "enter", group_now=group_now, settings=self._settings)
            if server.status not in _UP or server.ticket_keys is None:
                raise ServiceError("server_not_up", env_name=env, status=server.status)
            _check_users(server)
            before = session.get(Visit, (server.id, caller.user))
            if before is None or before.ticket_at < at.replace(second=0, microsecond=0):  # a loop would fill what is never forgotten
                audit.record(session, caller=caller, action="ticket", server=server, request_id=request_id)
            visit = session.merge(Visit(server_id=server.id, user=caller.user, uid=caller.uid, ticket_at=at))
            # By a clock that was ahead: until then they could not come back. Put out since we began to wait for our turn, they stay out.
            ended = visit.revoked_at is not None and visit.revoked_at > now()
            if ended:
                visit.revoked_at, visit.told = None, False
                end_sessions(server, self._keyring)
        if ended:
            self._kick.send()
        keys = tickets.read_keys(self._keyring.decrypt(server.ticket_keys))
        text = tickets.make_ticket(keys, server_id=server.id, user=caller.user, now=at.timestamp(), request_id=request_id)
        return Ticket(
            text=text,
            user=caller.user,
            expires_at=at + timedelta(seconds=tickets.TICKET_SECONDS),
            sign_in_url=f"{portal}/rnode/{server.host}/{server.port}/mlflow/-/sign-in",
        )

    def make_token(self, caller: Caller, group: str, env: str, *, seconds: int, name: str, request_id: str | None) -> tuple[Token, Secret]:
        """A token for the caller, and its text, which nobody ever sees again. Errors: ``token_too_long``, ``too_many_tokens``,
        ``auth_info_missing``.
        """
        if seconds > self._settings.token_days * 86400:
            raise ServiceError("token_too_long", days=self._settings.token_days)
        ask, group_now = Ask(caller=caller, group=group, env=env), policy.group_now(caller, group, self._directory)
        token_id = new_token_id()
        text = Secret(f"aihub_{token_id}_{secrets.token_urlsafe(32)}")
        with self._registry.session() as session:
            server, _ = permitted(session, ask, "enter", group_now=group_now, settings=self._settings)
            _check_users(server)
            if sum(token.user == caller.user and is_in_force(token) for token in server.tokens) >= MOST_TOKENS:
                raise ServiceError("too_many_tokens", count=MOST_TOKENS)
            token = Token(
                id=token_id,
                name=name,
                user=caller.user,
                uid=caller.uid,
                sha256=hashlib.sha256(text.reveal().encode()).hexdigest(),
                expires_at=now() + timedelta(seconds=seconds),
            )
            server.tokens.append(token)
            audit.record(session, caller=caller, action="token_create", server=server, request_id=request_id)
        self._kick.send()
        return token, text

    def tokens(self, caller: Caller, group: str, env: str) -> Sequence[Token]:
        """Every member's tokens of the server, the newest first; those that are over are still listed for some days."""
        ask, group_now = Ask(caller=caller, group=group, env=env), policy.group_now(caller, group, self._directory)
        with self._registry.reading() as session:
            server, _ = permitted(session, ask, "enter", group_now=group_now, settings=self._settings, lock=False)
            return sorted(server.tokens, key=lambda token: token.created_at, reverse=True)

    def revoke_token(self, caller: Caller, group: str, env: str, token_id: str, *, request_id: str | None) -> Token:
        """End a token now: one's own, or anybody's for who may set the users. Errors: ``no_such_bearer_token``, ``token_of_other``."""
        ask, group_now = Ask(caller=caller, group=group, env=env), policy.group_now(caller, group, self._directory)
        with self._registry.session() as session:
            server, _ = permitted(session, ask, "enter", group_now=group_now, settings=self._settings)
            token = next((each for each in server.tokens if each.id == token_id), None)
            if token is None:
                raise ServiceError("no_such_bearer_token", id=token_id)
            situation = policy.Situation(group_now=group_now)
            if token.user != caller.user and policy.refusal(caller, server, "revoke", settings=self._settings, situation=situation):
                raise ServiceError("token_of_other", id=token_id, user=token.user)
            if token.revoked_at is None:
                token.revoked_at, token.told = now(), False
                audit.record(session, caller=caller, action="token_revoke", server=server, request_id=request_id)
        self._kick.send()
        return token

    def rotate_ticket_key(self, caller: Caller, group: str, env: str, *, at_once: bool) -> None:
        """A new ticket key for the server. ``at_once``: every session ends; else those under the key before this one go on. Admins only."""
        if not caller.admin:
            raise ServiceError("not_allowed", who=policy.ADMINS)
        with self._registry.session() as session:
            server = find(session, group, env, lock=True)
            if server is None:
                raise not_there(caller, group, env)
            older = tickets.read_keys(self._keyring.decrypt(server.ticket_keys)) if server.ticket_keys and not at_once else ()
            server.ticket_keys = self._keyring.encrypt(tickets.new_keys(older))
            audit.record(session, caller=caller, action="ticket_key", server=server)
        self._kick.send()


def end_sessions(server: Server, keyring: Keyring) -> None:
    """End all that was ever signed for that server's sign-in, once it is told."""
    server.ticket_keys = keyring.encrypt(tickets.new_keys())


def _check_users(server: Server) -> None:
    """The box lets nobody in before a user is registered: a ticket or token would be of no use. Raises ServiceError."""
    if not server.users:
        raise ServiceError("auth_info_missing", env_name=server.env_name)


def is_in_force(token: Token) -> bool:
    """Whether it opens its server, once that was told."""
    return token.revoked_at is None and token.expires_at > now()


def untold(session: Session) -> set[str]:
    """The servers whose box has not taken over all that was asked for."""
    queries = (select(Token.server_id).where(Token.told.is_(False)), select(Visit.server_id).where(Visit.told.is_(False)))
    return {server_id for query in queries for server_id in session.scalars(query)}


def is_told(server: Server) -> bool:
    """Whether that server's box has, as far as this row knows."""
    return all(token.told for token in server.tokens) and all(visit.told for visit in server.visits)


def note_told(registry: Registry, seen: Server) -> None:
    """The box has taken over what that row says. What was asked for since is still to be told."""
    with registry.session() as session:
        for token in (each for each in seen.tokens if not each.told):
            row = session.get(Token, token.id)
            if row is not None and row.revoked_at == token.revoked_at:
                row.told = True
        for visit in (each for each in seen.visits if not each.told):
            row_of = session.get(Visit, (visit.server_id, visit.user))
            if row_of is not None and row_of.revoked_at == visit.revoked_at:
                row_of.told = True
