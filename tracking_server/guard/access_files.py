"""The files of `config/` that say who may in beside the users with a password: ticket keys, tokens, people who left."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from tracking_server.guard.signed import decode

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TOKEN_ID = re.compile(r"[a-z0-9]{1,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY_BYTES = 32


class AccessFileError(ValueError):
    """The file cannot be used; the text has nothing of its content."""


class Token(NamedTuple):
    """A bearer token that was given to `user`; good until `expires` (seconds since 1970)."""

    id: str
    user: str
    expires: float


def parse_ticket_keys(text: str | bytes) -> dict[str, bytes]:
    """The keys by their id, newest first. Raises AccessFileError."""
    keys: dict[str, bytes] = {}
    for entry in _entries("ticket_keys.json", "keys", text):
        key_id, key = entry.get("id"), entry.get("key")
        data = decode(key) if isinstance(key, str) else None
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id) or data is None or len(data) != _KEY_BYTES:
            raise AccessFileError("ticket_keys.json: each key needs an id and 32 bytes in base64url")
        keys[key_id] = data
    return keys


def parse_tokens(text: str | bytes) -> dict[str, Token]:
    """The tokens by the SHA-256 of their text, in hexadecimal. Raises AccessFileError."""
    tokens: dict[str, Token] = {}
    for entry in _entries("tokens.json", "tokens", text):
        token_id, digest, user, expires = (entry.get(name) for name in ("id", "sha256", "user", "expires"))
        named = isinstance(token_id, str) and _TOKEN_ID.fullmatch(token_id) and isinstance(user, str) and user
        if not named or not isinstance(digest, str) or not _SHA256.fullmatch(digest) or not _is_time(expires):
            raise AccessFileError("tokens.json: each token needs id, sha256, user and expires")
        tokens[digest] = Token(str(token_id), str(user), float(expires))  # type: ignore[arg-type]  # _is_time says that it is a number
    return tokens


def parse_revoked(text: str | bytes) -> dict[str, float]:
    """The users with the time (seconds since 1970) up to which their sessions count no more. Raises AccessFileError."""
    revoked: dict[str, float] = {}
    for entry in _entries("revoked.json", "revoked", text):
        user, at = entry.get("user"), entry.get("at")
        if not isinstance(user, str) or not user or not _is_time(at):
            raise AccessFileError("revoked.json: each entry needs user and at")
        revoked[user] = max(float(at), revoked.get(user, 0.0))  # type: ignore[arg-type]  # as above
    return revoked


def _entries(file: str, name: str, text: str | bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except ValueError:
        raise AccessFileError(f"{file} is not JSON: write it anew") from None
    entries = document.get(name) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AccessFileError(f'{file} must be {{"{name}": [{{…}}]}}')
    return entries


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
