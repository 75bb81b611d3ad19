"""API tokens that an admin issues to a user, for hosts without MUNGE. Of a token only a digest is kept; it is shown once."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from datetime import datetime, timedelta
from typing import Final

from mlwf.secret import Secret
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.domain import Caller
from backend.errors import ServiceError
from backend.registry.database import Registry
from backend.registry.models import ApiToken, AuditEntry, now

log = logging.getLogger(__name__)
PREFIX: Final = "aihub"
MOST_DAYS: Final = 366
_TEXT: Final = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_USE_IS_NOTED_EVERY: Final = timedelta(hours=1)


class ApiTokens:
    """The tokens of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def create(self, *, user: Caller, days: int, note: str, by: Caller) -> tuple[ApiToken, Secret]:
        """A token by which its holder is ``user`` for so many days; the text is nowhere kept."""
        secret = secrets.token_urlsafe(32)
        with self._registry.session() as session:
            row = ApiToken(
                id=secrets.token_hex(6),
                user=user.user,
                uid=user.uid,
                digest=_digest(secret),
                note=note,
                created_by=by.user,
                expires_at=now() + timedelta(days=days),
            )
            session.add(row)
            _record(session, by, "create_token", row)
        return row, Secret(f"{PREFIX}_{row.id}_{secret}")

    def list(self, *, all_: bool = False) -> list[ApiToken]:
        """Those that are good, the newest first; ``all_``: with those that ran out or were revoked."""
        query = select(ApiToken).order_by(ApiToken.created_at.desc())
        if not all_:
            query = query.where(ApiToken.revoked_at.is_(None), ApiToken.expires_at > now())
        with self._registry.reading() as session:
            return list(session.scalars(query))

    def revoke(self, token_id: str, *, by: Caller) -> ApiToken:
        """From now on it is refused; again is well. Error: ``no_such_token``."""
        with self._registry.session() as session:
            row = session.get(ApiToken, token_id)
            if row is None:
                raise ServiceError("no_such_token", id=token_id)
            if row.revoked_at is None:
                row.revoked_at = now()
                _record(session, by, "revoke_token", row)
        return row

    def holder(self, text: str) -> ApiToken:
        """The row of a token that is good now. Errors: ``token_unknown``, ``token_revoked``, ``token_expired``."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ServiceError("token_unknown")
        with self._registry.reading() as session:
            row = session.get(ApiToken, match[1])
        # compared for an unknown id too, so that the time says nothing
        good = hmac.compare_digest(row.digest if row else _digest(""), _digest(match[2]))
        if row is None or not good:
            raise ServiceError("token_unknown")
        if row.revoked_at is not None:
            raise ServiceError("token_revoked", id=row.id)
        if row.expires_at <= now():
            raise ServiceError("token_expired", id=row.id, date=row.expires_at.date().isoformat())
        self._note_use(row)
        return row

    def _note_use(self, row: ApiToken) -> None:
        """Seldom, so that reading requests stay reading ones; a full disk is in the way of none."""
        if row.used_at is not None and now() - row.used_at <= _USE_IS_NOTED_EVERY:
            return
        try:
            with self._registry.session() as session:
                session.get_one(ApiToken, row.id).used_at = now()
        except ServiceError as error:
            log.warning("the use of token %s is noted later: %s", row.id, error)


def _digest(secret: str) -> str:
    """256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _record(session: Session, by: Caller, action: str, row: ApiToken) -> None:
    entry = AuditEntry(user=by.user, uid=by.uid, scheme=by.scheme, action=action, group_name="", env_name=f"{row.id} of {row.user}")
    session.add(entry)


def state_of(row: ApiToken, at: datetime) -> str:
    """``good``, ``expired`` or ``revoked``."""
    if row.revoked_at is not None:
        return "revoked"
    return "good" if row.expires_at > at else "expired"
