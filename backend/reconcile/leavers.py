"""The end of sign-ins and tokens of people who left their group, or whose accounts are gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from backend.domain import Caller
from backend.errors import ServiceError
from backend.ports import Directory
from backend.registry.database import Registry, among
from backend.registry.keyring import Keyring
from backend.registry.models import ALONE, Server, Token, Visit, now
from backend.settings import Settings
from backend.wishes import access, audit, policy, tickets
from backend.wishes.access import MOST_TOKENS, REMEMBERED_DAYS
from backend.wishes.membership import View

log = logging.getLogger(__name__)

ABSENT_SECONDS: Final = 3600.0
"""For so long an account that NSS does not find must be away before what it has is ended, unless its group says that it left: a source of
NSS that is not there (sssd stopped, say) reads as if nobody existed. So must one whose uid has another name now: where a site changes how
it writes names (sssd's ``use_fully_qualified_names``), all have one, and whoever changes it back within the hour has lost nothing.
"""

Entrant = tuple[str, int, str]
"""Who may be in: server, uid and name. A uid that went to somebody else since says nothing of who had it before."""


class Leavers:
    """Ends what people have in the servers of groups that they left; and gives servers of an older service their ticket key."""

    def __init__(
        self,
        *,
        registry: Registry,
        directory: Directory,
        keyring: Keyring,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._keyring = keyring
        self._settings = settings
        self._clock = clock
        self._out_before: set[Entrant] = set()
        self._absent_since: dict[Entrant, float] = {}

    def sweep(self) -> bool:
        """One look at all who may be in. True where something changed. What NSS does not answer stays as it is. Who is out must be so at
        two looks in a row, or absent for ``ABSENT_SECONDS``: a lost answer reads like a leave, and what is ended here does not come back.
        """
        keyed = self._give_keys()
        out, absent = self._out()
        at = self._clock()
        self._absent_since = {each: self._absent_since.get(each, at) for each in absent}
        gone = (out & self._out_before) | {each for each, since in self._absent_since.items() if at - since >= ABSENT_SECONDS}
        self._out_before = out - gone
        for entrant in sorted(gone):
            with self._registry.session() as session:
                self._end(session, entrant)
        return keyed or bool(gone)

    def tidy(self, sure: datetime) -> None:
        """Forget what is over since long, by a time that it surely is."""
        oldest = sure - timedelta(days=REMEMBERED_DAYS)
        last_session = sure - timedelta(hours=self._settings.session_hours + 1)
        with self._registry.session() as session:
            session.execute(delete(Token).where(or_(Token.expires_at < oldest, Token.revoked_at < oldest)))
            place = func.row_number().over(partition_by=(Token.server_id, Token.user), order_by=Token.created_at.desc())
            is_over = or_(Token.expires_at < sure, Token.revoked_at < sure)
            over = select(Token.id, place.label("place")).where(Token.told, is_over).subquery()
            session.execute(delete(Token).where(Token.id.in_(select(over.c.id).where(over.c.place > MOST_TOKENS))))
            session.execute(
                delete(Visit).where(Visit.ticket_at < last_session, or_(Visit.revoked_at.is_(None), Visit.revoked_at < last_session))
            )

    def _give_keys(self) -> bool:
        with self._registry.reading() as session:
            lacking = session.scalars(select(Server.id).where(Server.ticket_keys.is_(None))).all()
        for server_id in lacking:
            with self._registry.session() as session:
                server = session.get(Server, server_id)
                if server is not None and server.ticket_keys is None:
                    server.ticket_keys = self._keyring.encrypt(tickets.new_keys())
                    flag_modified(server, "updated_at")  # nobody changed the server: it keeps its time
        return bool(lacking)

    def _out(self) -> tuple[set[Entrant], set[Entrant]]:
        """Who may be in and is a member no more, as NSS says now; and whom it does not find at all."""
        callers: dict[int, Caller | None] = {}
        view, out, absent = View(self._directory), set(), set()
        for server, uid, user in self._inside():
            entrant = (server.id, uid, user)
            try:
                if uid not in callers:
                    callers[uid] = self._caller(uid)
                caller = callers[uid]
                renamed = caller is not None and caller.user != user
                away = renamed or (caller is None and not _has_left(view, server, user))
                if away or view.group(server.group_name) is None:
                    absent.add(entrant)
                elif caller is None or not self._may_enter(caller, server):
                    out.add(entrant)
            except ServiceError as error:
                log.warning("server %s: whether uid %d may still enter is not known now: %s", server.id, uid, error)
        return out, absent

    def _inside(self) -> list[tuple[Server, int, str]]:
        """Who may have a session or has a token. A deleted server lets nobody in; after its restore it is looked at again."""
        since = now() - timedelta(hours=self._settings.session_hours)
        since_revoked = or_(Visit.revoked_at.is_(None), Visit.revoked_at < Visit.ticket_at)
        visits = select(Visit.server_id, Visit.uid, Visit.user).where(Visit.ticket_at > since, since_revoked)
        tokens = select(Token.server_id, Token.uid, Token.user).where(Token.revoked_at.is_(None), Token.expires_at > now())
        with self._registry.reading() as session:
            inside = {(server_id, uid, user) for query in (visits, tokens) for server_id, uid, user in session.execute(query)}
            wanted = select(Server).where(among(Server.id, {server_id for server_id, _, _ in inside}), Server.deleted_at.is_(None))
            servers = {each.id: each for each in session.scalars(wanted.options(ALONE))}
        return [(servers[server_id], uid, user) for server_id, uid, user in sorted(inside) if server_id in servers]

    def _caller(self, uid: int) -> Caller | None:
        try:
            return self._directory.caller(uid=uid)
        except ServiceError as error:
            if error.code == "caller_unknown":
                return None
            raise

    def _may_enter(self, caller: Caller, server: Server) -> bool:
        """Whether policy lets that caller in. A list of groups hides what NSS failed to look up, so it alone shows nobody out."""
        group_now = policy.group_now(caller, server.group_name, self._directory)
        situation = policy.Situation(group_now=group_now)
        refused = policy.refusal(caller, server, "enter", settings=self._settings, situation=situation)
        if refused is None or refused.code != "not_a_member" or group_now != server.gid:
            return refused is None
        return self._directory.is_member(user=caller.user, gid=server.gid)

    def _end(self, session: Session, entrant: Entrant) -> None:
        at, (server_id, uid, user) = now(), entrant
        visits = session.scalars(select(Visit).where(Visit.server_id == server_id, Visit.uid == uid, Visit.user == user)).all()
        of_user = (Token.server_id == server_id, Token.uid == uid, Token.user == user)
        tokens = session.scalars(select(Token).where(*of_user, Token.revoked_at.is_(None))).all()
        held: list[Visit | Token] = [*visits, *tokens]
        for row in held:
            row.revoked_at, row.told = at, False
        server = session.get(Server, server_id)
        if server is None or not held:
            return  # purged meanwhile
        if any(visit.ticket_at > at for visit in visits):  # the clock was ahead then: no time of now ends what was signed for a later one
            access.end_sessions(server, self._keyring)
            for visit in visits:
                visit.ticket_at = min(visit.ticket_at, at)
        gone = Caller(user=user, uid=uid, groups=(), scheme="service")
        audit.record(session, caller=gone, action="left_group", server=server)
        log.info("server %s: %s (uid %d) may enter no more", server_id, user, uid)


def _has_left(view: View, server: Server, user: str) -> bool:
    """Whether the server's group is there and does not name that user: then an account that is not found is surely gone."""
    group = view.group(server.group_name)
    return group is not None and user not in view.members(group)
