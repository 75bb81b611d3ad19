"""Sign-in through the portal: a ticket becomes a session, and a session's cookie says who asks.

The service signs a ticket for one user and this server; the guard takes it once, seconds later at most, from a page of the portal, and
makes a cookie that it signs itself. Nothing else ever becomes a cookie. The portal's word about its user is no proof, but where it is
there it must agree.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tracking_server.guard import signed
from tracking_server.guard.spent import Spent
from tracking_server.settings import Settings

MOST_TICKET_SECONDS = 60.0
CLOCK_SECONDS = 30.0
"""By how much the service's clock may be ahead of ours."""
SET_BACK_SECONDS = 3600.0
"""By how much our clock may be set back and a session go on. One of a clock that was further ahead would last until it is that late."""
COOKIE_PATH = "/mlflow"
_LOOPBACK = re.compile(r"http://(127\.[0-9.]+|localhost|\[::1\])(:[0-9]+)?")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class SignInError(Exception):
    """Nobody is signed in; `code` names the sentence of `pages`, `values` what it tells."""

    def __init__(self, code: str, **values: str) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


class Session(NamedTuple):
    """Somebody who signed in. Times in seconds since 1970."""

    id: str
    user: str
    since: float
    until: float
    request_id: str = "-"
    """Of the request for the ticket, where one is just signing in."""


class Sessions:
    """`settings` gives those in force now. `clock`: seconds since 1970."""

    def __init__(self, settings: Callable[[], Settings], spent: Spent, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._spent = spent
        self._clock = clock
        self._started = clock()
        self._keys: dict[str, bytes] = {}
        self._revoked: dict[str, float] = {}

    def set_keys(self, keys: Mapping[str, bytes]) -> None:
        """The ticket keys by their id, newest first. Sessions under a key that is not among them have ended."""
        self._keys = dict(keys)

    def set_revoked(self, revoked: Mapping[str, float]) -> None:
        """Users whose tickets and sessions from before that time count no more."""
        self._revoked = dict(revoked)

    def enter(self, ticket: str, *, origin: str, portal_user: str) -> tuple[Session, str]:
        """A new session for a ticket, and its `Set-Cookie`. `portal_user`: whom the portal says it is, empty where it does not say.

        Raises:
            SignInError: nobody is signed in.
        """
        secure = self._check_origin(origin)
        claims = self._claims(ticket)
        user, now = claims["u"], self._clock()
        if portal_user and portal_user != user:
            raise SignInError("other_user", portal_user=portal_user, user=user)
        if self._is_revoked(user, claims["t"]):
            raise SignInError("revoked", user=user)
        try:
            fresh = self._spent.add(claims["n"], claims["e"] + CLOCK_SECONDS, now=now)
        except OSError:
            raise SignInError("no_room") from None
        if not fresh:
            raise SignInError("used")
        settings = self._settings()
        session = Session(signed.encode(os.urandom(12)), user, now, now + settings.session_seconds, claims.get("r", "-"))
        return session, self._set_cookie(self._text(session), settings.session_seconds, secure=secure)

    def _check_origin(self, origin: str) -> bool:
        """Whether the cookie can be one for https alone."""
        settings = self._settings()
        if origin not in (settings.sign_in_origins or settings.origins):
            raise SignInError("foreign_origin", origin=origin or "-")
        if origin.startswith("http://") and not _LOOPBACK.fullmatch(origin):
            raise SignInError("plain_http", origin=origin)
        return origin.startswith("https://")

    def _claims(self, ticket: str) -> dict[str, Any]:
        claims = signed.read(signed.TICKET, self._keys, ticket)
        if claims is None or claims.get("s") != self._settings().server_id:
            raise SignInError("not_ours")
        now, issued, until = self._clock(), claims["t"], claims["e"]
        self._started = min(self._started, now)  # a clock that was ahead when we started was set right since
        if issued > now + CLOCK_SECONDS:
            raise SignInError("clock")
        if now > until or until - issued > MOST_TICKET_SECONDS:
            raise SignInError("too_old")
        if issued < self._started and not self._spent.survived:
            raise SignInError("too_old")
        return claims

    def find(self, cookies: str, portal_user: str) -> Session | None:
        """Whose session the request's cookies carry; None for nobody's. Several of the same name may come, from other paths."""
        now = self._clock()
        for text in self._our_cookies(cookies):
            claims = signed.read(signed.SESSION, self._keys, text)
            if claims is None or claims["s"] != self._settings().server_id:
                continue
            session = Session(claims["i"], claims["u"], claims["t"], claims["e"])
            if not session.since - SET_BACK_SECONDS <= now < session.until:
                continue
            if session.id in self._spent or self._is_revoked(session.user, session.since):
                continue
            if not portal_user or portal_user == session.user:
                return session
        return None

    def may_write(self, method: str, origin: str) -> bool:
        """Whether a request with a cookie may do what its method says: another site's page can make a browser send one."""
        return method in SAFE_METHODS or origin in self._settings().origins

    def leave(self, session: Session, *, origin: str) -> str:
        """End it; gives the `Set-Cookie` that takes the cookie away.

        Raises:
            SignInError: from a page of another site.
        """
        if origin not in self._settings().origins:
            raise SignInError("foreign_origin", origin=origin or "-")
        try:
            self._spent.add(session.id, session.until, now=self._clock())
        except OSError:
            raise SignInError("no_room") from None
        return self._set_cookie("", 0, secure=origin.startswith("https://"))

    def _is_revoked(self, user: str, since: float) -> bool:
        return since <= self._revoked.get(user, 0.0)

    def _text(self, session: Session) -> str:
        key_id, key = next(iter(self._keys.items()))
        claims = {"s": self._settings().server_id, "i": session.id, "u": session.user, "t": session.since, "e": session.until}
        return signed.sign(signed.SESSION, key_id, key, claims)

    def _set_cookie(self, value: str, seconds: float, *, secure: bool) -> str:
        prefix, mark = ("__Secure-", "; Secure") if secure else ("", "")
        name = f"{prefix}aihub-{self._settings().server_id}"
        return f"{name}={value}; Path={COOKIE_PATH}; Max-Age={int(seconds)}; HttpOnly; SameSite=Lax{mark}"

    def _our_cookies(self, cookies: str) -> Iterator[str]:
        settings = self._settings()
        names = {f"__Secure-aihub-{settings.server_id}"}
        if any(_LOOPBACK.fullmatch(origin) for origin in settings.origins):
            names.add(f"aihub-{settings.server_id}")
        for pair in cookies.replace(",", ";").split(";"):
            name, _, value = pair.strip().partition("=")
            if name in names:
                yield value
