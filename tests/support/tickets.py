"""Tickets and keys as the service makes them, for tests of a box alone (docs/reference/box.md has the form)."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

KEY_ID = "t1"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def keys_document(*keys: tuple[str, bytes]) -> str:
    return json.dumps({"keys": [{"id": key_id, "key": encoded(key)} for key_id, key in keys]})


def signed(key: bytes, claims: dict[str, Any], *, key_id: str = KEY_ID, purpose: str = "ticket.v1") -> str:
    payload = encoded(json.dumps(claims).encode())
    mac = hmac.digest(key, f"{purpose}.{key_id}.{payload}".encode(), hashlib.sha256)
    return f"{key_id}.{payload}.{encoded(mac)}"


def ticket(key: bytes, server_id: str, user: str = "alice", *, at: float | None = None, key_id: str = KEY_ID, **claims: Any) -> str:
    now = time.time() if at is None else at
    usual = {"s": server_id, "u": user, "t": now, "e": now + 30, "n": secrets.token_urlsafe(12)}
    return signed(key, {**usual, **claims}, key_id=key_id)
