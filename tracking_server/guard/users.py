"""`config/users.json`: who may in, by name and bcrypt hash."""

from __future__ import annotations

import json
import re

_BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UsersError(ValueError):
    """`users.json` cannot be used; the text has no name and no hash in it."""


def parse_users(text: str | bytes) -> dict[str, bytes]:
    """Names and their hashes.

    Raises:
        UsersError: the document has another form.
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise UsersError("users.json is not JSON: write it anew") from None
    entries = document.get("users") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise UsersError('users.json must be {"users": [{"name": …, "bcrypt": …}]}')
    users: dict[str, bytes] = {}
    for number, entry in enumerate(entries, 1):
        name, line = (entry.get("name"), entry.get("bcrypt")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not name or len(name) > 255 or ":" in name or _CONTROL.search(name):
            raise UsersError(f"users.json: entry {number} needs a name of 1 to 255 characters, without colon and control characters")
        if not isinstance(line, str) or not _BCRYPT.fullmatch(line) or not 4 <= int(line[4:6]) <= 16:
            raise UsersError(f"users.json: entry {number} needs a bcrypt hash (cost 4 to 16)")
        if name in users:
            raise UsersError(f"users.json: entry {number} has a name that is there already")
        users[name] = line.encode()
    return users
