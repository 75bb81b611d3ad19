"""Sign-in tickets: the service's word to one tracking server that it knows this user, good once and for seconds.

The form is the box's (docs/reference/box.md, *Sign-in*), signed with a key that only the service and that server's guard have.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Sequence
from typing import Final

from mlwf.secret import Secret

from backend.domain import TicketKey

TICKET_SECONDS: Final = 30.0
SETTLED_SECONDS: Final = 60.0
"""A key so new may not have reached its server: as long as there is an older one, that one signs."""
_KEYS_KEPT: Final = 2
_PURPOSE: Final = "ticket.v1"


def new_keys(older: Sequence[TicketKey] = ()) -> Secret:
    """A new key before the older ones, as the registry stores them (encrypted). The last but one of them still counts."""
    key = TicketKey(id=f"t{secrets.token_hex(4)}", key=Secret(_encoded(secrets.token_bytes(32))), made_at=time.time())
    kept = [key, *older][:_KEYS_KEPT]
    return Secret(json.dumps([{"id": each.id, "key": each.key.reveal(), "made_at": each.made_at} for each in kept]))


def read_keys(stored: Secret) -> tuple[TicketKey, ...]:
    """What ``new_keys`` made."""
    return tuple(TicketKey(id=each["id"], key=Secret(each["key"]), made_at=each["made_at"]) for each in json.loads(stored.reveal()))


def make_ticket(keys: Sequence[TicketKey], *, server_id: str, user: str, now: float, request_id: str | None) -> Secret:
    """A ticket for that user and server. ``now``: seconds since 1970; ``request_id``: of the request for it, which the guard notes."""
    key = next((each for each in keys if each.made_at <= now - SETTLED_SECONDS), keys[-1])
    until, name = round(now + TICKET_SECONDS, 3), secrets.token_urlsafe(12)
    claims = {"s": server_id, "u": user, "t": round(now, 3), "e": until, "n": name, "r": request_id or "-"}
    payload = _encoded(json.dumps(claims, separators=(",", ":")).encode())
    mac = hmac.digest(_decoded(key.key.reveal()), f"{_PURPOSE}.{key.id}.{payload}".encode(), hashlib.sha256)
    return Secret(f"{key.id}.{payload}.{_encoded(mac)}")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
