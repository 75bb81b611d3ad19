"""Who asks: each scheme looks at a request and says a principal, a refusal, or that the request has nothing for it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tracking_server.guard.access_files import Token
from tracking_server.guard.http import Request
from tracking_server.guard.sessions import SAFE_METHODS, Sessions
from tracking_server.guard.verifier import RETRY_AFTER_SECONDS, Verdict, Verifier

CLOSED, EXPIRED = "closed", "expired"
"""No user is registered, so nobody gets in; a token that was good, which only who has it can learn."""


class Principal(NamedTuple):
    """Somebody who was proved to be who they are. `scheme`: how; `name`: as that scheme names them."""

    scheme: str
    name: str

    def as_header(self) -> str:
        """`scheme:name` in printable ASCII; everything else, and `%`, is percent-encoded UTF-8."""
        safe = (chr(byte) if 0x20 < byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in self.name.encode())
        return f"{self.scheme}:{''.join(safe)}"


class Refused(NamedTuple):
    """Nobody. `retry_after`: seconds after which to ask again, where that may help. `foreign`: sent by another site's page.
    `why`: what is said of it where that helps, one of `CLOSED`, `EXPIRED`.
    """

    retry_after: int | None = None
    foreign: bool = False
    why: str = ""


Outcome = Principal | Refused
Tell = Callable[[Outcome], None]


class Scheme(Protocol):
    def attempt(self, request: Request, tell: Tell) -> bool:
        """False when the request carries nothing for this scheme; else the outcome is told, now or later, once."""


class SessionScheme:
    """The cookie of who signed in through the portal. One that is nobody's counts as none: the request may carry something better."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def attempt(self, request: Request, tell: Tell) -> bool:
        headers = request.headers
        session = self._sessions.find(headers.get("cookie", ""), headers.get("x-forwarded-user", ""))
        if session is None:
            return False
        if self._sessions.may_write(headers.get("x-original-method", ""), headers.get("origin", "")):
            tell(Principal("portal", session.user))
        else:
            tell(Refused(foreign=True))
        return True


class BearerScheme:
    """`Authorization: Bearer`, against the tokens that were given for this server."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def set_tokens(self, tokens: Mapping[str, Token]) -> None:
        """By the SHA-256 of their text. A token is 256 bits of chance: nothing slower is needed to keep it from being guessed."""
        self._tokens = dict(tokens)

    def attempt(self, request: Request, tell: Tell) -> bool:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return False
        token = self._tokens.get(hashlib.sha256(text.strip().encode("latin-1")).hexdigest())
        if token is None:
            tell(Refused())
        elif time.time() >= token.expires:
            tell(Refused(why=EXPIRED))
        else:
            tell(Principal("token", f"{token.id}:{token.user}"))
        return True


class BasicScheme:
    """`Authorization: Basic`, against the registered users."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def attempt(self, request: Request, tell: Tell) -> bool:
        kind, _, blob = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        credential = parse_basic(blob)
        if credential is None:
            tell(Refused())
            return True
        name, password = credential

        def answer(verdict: Verdict) -> None:
            if verdict is Verdict.RIGHT:
                tell(Principal("basic", name))
            else:
                tell(Refused(RETRY_AFTER_SECONDS if verdict is Verdict.BUSY else None))

        self._verifier.verify(name, password, request.headers.get("x-real-ip", ""), answer)
        return True


def parse_basic(blob: str) -> tuple[str, bytes] | None:
    """Name and password of a Basic credential; None when it is none."""
    try:
        name, colon, password = base64.b64decode(blob.strip(), validate=True).partition(b":")
        text = name.decode()
    except (binascii.Error, ValueError):
        return None
    # bcrypt knows no NUL and reads 72 bytes: neither can have been registered.
    if not colon or not text or b"\0" in password:
        return None
    return text, password


def identify(schemes: Sequence[Scheme], request: Request, tell: Tell, *, closed: bool, pages: Sequence[str]) -> None:
    """The first scheme for which the request carries something decides. `closed`: no user is registered, so none is asked. `pages`: the
    origins of pages that may change something; a browser sends a password that it remembers along with what any page asks for.
    """
    if closed:
        tell(Refused(why=CLOSED))
        return
    headers = request.headers
    if headers.get("x-original-method", "") not in SAFE_METHODS and headers.get("origin", "") not in ("", *pages):
        tell(Refused(foreign=True))
        return
    for scheme in schemes:
        if scheme.attempt(request, tell):
            return
    tell(Refused())
