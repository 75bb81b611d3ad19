"""Signed texts: tickets, which the service makes, and session cookies, which the guard makes.

`KEY_ID.PAYLOAD.MAC`: the payload is JSON and the MAC is HMAC-SHA256, both in base64url without padding. The MAC covers the purpose too, so
that a ticket is no cookie and a cookie no ticket. The standard library does it in these few lines; a package for it would be paid for by
every sleeping server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

TICKET = "ticket.v1"
SESSION = "session.v1"
_LONGEST = 2048


def sign(purpose: str, key_id: str, key: bytes, claims: Mapping[str, object]) -> str:
    """The claims as a signed text."""
    payload = encode(json.dumps(claims, separators=(",", ":")).encode())
    return f"{key_id}.{payload}.{encode(_mac(purpose, key_id, key, payload))}"


def read(purpose: str, keys: Mapping[str, bytes], text: str) -> dict[str, Any] | None:
    """The claims of a text that one of the keys signed for this purpose; None for everything else."""
    key_id, _, rest = text.partition(".")
    payload, _, mac = rest.partition(".")
    key = keys.get(key_id)
    if key is None or len(text) > _LONGEST:
        return None
    given = decode(mac)
    if given is None or not hmac.compare_digest(given, _mac(purpose, key_id, key, payload)):
        return None
    claims = json.loads(decode(payload) or b"null")
    return claims if isinstance(claims, dict) else None


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes | None:
    """None for what is not base64url."""
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _mac(purpose: str, key_id: str, key: bytes, payload: str) -> bytes:
    return hmac.digest(key, f"{purpose}.{key_id}.{payload}".encode(), hashlib.sha256)
