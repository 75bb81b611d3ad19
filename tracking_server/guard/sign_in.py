"""The paths by which people sign in and out: `/-/sign-in`, `/-/sign-out`, and what a browser sees that nobody signed in (`/-/refused`).

Their pages are imported when one is asked for: half a megabyte that a server without such visitors need not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from tracking_server.guard.http import Handler, Request, Respond, Response
from tracking_server.guard.identity import Principal
from tracking_server.guard.sessions import Session, Sessions, SignInError
from tracking_server.settings import Settings

_NOT_STORED = ("Cache-Control", "no-store")


class SignIn:
    """`paths`: handlers of the guard's HTTP server. `closed`: whether nobody gets in now; out they may always."""

    def __init__(
        self, sessions: Sessions, *, settings: Callable[[], Settings], closed: Callable[[], bool], log: Callable[[str], None]
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._closed = closed
        self._log = log
        self.paths: Mapping[str, Handler] = {"/-/sign-in": self._sign_in, "/-/sign-out": self._sign_out, "/-/refused": self._refused}

    def _sign_in(self, request: Request, respond: Respond) -> None:
        if request.method == "POST":
            self._guarded(self._enter, request, respond)
            return
        session = self._session(request)
        if session is None or self._closed():
            self._refused(request, respond)
        else:
            from tracking_server.guard.pages import session_page

            languages = request.headers.get("accept-language", "")
            respond(session_page(session.user, session.until, languages=languages, console_url=self._settings().console_url))

    def _sign_out(self, request: Request, respond: Respond) -> None:
        if request.method == "POST":
            self._guarded(self._leave, request, respond)
        else:
            respond(Response(405, b"", (("Allow", "POST"),)))

    def _refused(self, request: Request, respond: Respond) -> None:
        respond(self._problem(request, "closed" if self._closed() else "unknown", {}))

    def _guarded(self, action: Callable[[Request], Response], request: Request, respond: Respond) -> None:
        try:
            respond(action(request))
        except SignInError as error:
            self._note(request, f"a sign-in or sign-out was refused: {error.code}")
            respond(self._problem(request, error.code, error.values))

    def _enter(self, request: Request) -> Response:
        if self._closed():
            raise SignInError("closed")
        try:
            form = parse_qs(request.body.decode("latin-1"), max_num_fields=8)
        except ValueError:  # more fields than that
            raise SignInError("no_ticket") from None
        tickets = form.get("ticket", [])
        if len(tickets) != 1:
            raise SignInError("no_ticket")
        headers = request.headers
        session, cookie = self._sessions.enter(
            tickets[0], origin=headers.get("origin", ""), portal_user=headers.get("x-forwarded-user", "")
        )
        principal = Principal("portal", session.user).as_header()
        self._note(request, f"{principal} signed in with the ticket of request={session.request_id}")
        # Open OnDemand's /rnode puts its own path before one that begins with a slash.
        return Response(303, b"", (("Location", "/mlflow/"), ("Set-Cookie", cookie), ("X-Aihub-Principal", principal), _NOT_STORED))

    def _leave(self, request: Request) -> Response:
        session = self._session(request)
        if session is None:
            raise SignInError("unknown")
        cookie = self._sessions.leave(session, origin=request.headers.get("origin", ""))
        principal = Principal("portal", session.user).as_header()
        self._note(request, f"{principal} signed out")
        return Response(
            303, b"", (("Location", "/mlflow/-/sign-in"), ("Set-Cookie", cookie), ("X-Aihub-Principal", principal), _NOT_STORED)
        )

    def _note(self, request: Request, what: str) -> None:
        """With the id that nginx gave the request, or took from it where it is well-formed."""
        self._log(f"{what} request={request.headers.get('x-request-id', '-')}")

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.headers.get("cookie", ""), request.headers.get("x-forwarded-user", ""))

    def _problem(self, request: Request, code: str, values: Mapping[str, str]) -> Response:
        from tracking_server.guard.pages import problem_page

        return problem_page(code, values, languages=request.headers.get("accept-language", ""), console_url=self._settings().console_url)
