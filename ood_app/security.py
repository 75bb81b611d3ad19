"""What keeps other pages out: the portal gives its apps no protection of their own, and every page under /rnode shares its origin.

A change needs three things: a token that is signed into the session (Flask-WTF), the page's own origin, and the browser's word that the
request comes from the same site. The page itself may run no script but its own files and may not be framed.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect  # type: ignore[import-untyped]  # it ships no types
from mlwf.address import origin_of

from ood_app.problems import Problem
from ood_app.settings import Settings
from ood_app.texts import _

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class MountedSession(SecureCookieSessionInterface):
    """The session cookie is bound to the place where the portal mounts the console, so that other apps are not sent it."""

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root or super().get_cookie_path(app)


def protect(app: Flask, settings: Settings) -> None:
    """Sets up session, token, origin check and headers."""
    app.session_interface = MountedSession()
    app.config.update(
        SECRET_KEY=settings.secret_key or secrets.token_hex(32),
        SESSION_COOKIE_NAME="aihub_console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",  # with Strict a visit by a link of another site would begin a new session, in all tabs
        SESSION_COOKIE_SECURE=settings.portal_url.startswith("https://"),
        WTF_CSRF_TIME_LIMIT=None,  # a page may stay open for days; the token lives as long as its session
        WTF_CSRF_SSL_STRICT=False,  # the origin check below is stricter than one of the Referer
        WTF_CSRF_CHECK_DEFAULT=False,  # called below, after the origin check
    )
    token = CSRFProtect(app)

    @app.before_request
    def check() -> None:
        if not settings.portal_url and not _is_loopback(request.host):
            raise foreign(request.host)
        if request.method not in SAFE_METHODS:
            _check_origin(request, settings.portal_url)
            _check_token(token)

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _check_token(token: CSRFProtect) -> None:
    """Raises Problem unless the request has the token of its session."""
    try:
        token.protect()
    except CSRFError as error:
        text = _("This page is older than the console's last restart, so nothing was changed.")
        raise Problem(400, "page_too_old", text, _("Reload the console's page, then try again.")) from error


def _check_origin(request: Request, portal_url: str) -> None:
    """Raises Problem unless the browser says that the request comes from a page of the console's own origin."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site != "same-origin":
        raise foreign(site)
    origin = request.headers.get("Origin")
    if origin is None and site is None:
        raise foreign("?")
    expected = origin_of(portal_url or request.host_url)
    if origin is not None and origin != expected:
        raise foreign(origin)


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine's loopback: a foreign name there would be a rebound DNS name."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def foreign(source: str) -> Problem:
    """The refusal of a request that another page sent."""
    return Problem(
        403,
        "foreign_page",
        _("The request came from another page ({source}), so nothing was changed.").replace("{source}", source),
        _("Use the console's own page; if this is it, the admins must set AIHUB_CONSOLE_PORTAL_URL to the portal's address."),
    )
