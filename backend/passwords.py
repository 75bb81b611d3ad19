"""Passwords of BASIC-auth users: hashed in the request, so that the plain ones are never stored."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import bcrypt

from backend.domain import User
from backend.errors import ServiceError
from backend.secret import Secret

COST: Final = 12
MOST_BYTES: Final = 72
"""bcrypt looks at no more of a password."""


class Hasher:
    """Makes bcrypt hashes, in at most ``places`` requests at the same time: each hash costs about a third of a second of a core, and who
    sends many such requests must not take all threads. ``cost`` is lowered by tests alone.
    """

    def __init__(self, *, places: int, cost: int = COST) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._cost = cost

    def hash(self, users: Sequence[tuple[str, Secret]]) -> tuple[User, ...]:
        """Names with their hashes. Error: ``too_many_requests``."""
        if not self._places.acquire(blocking=False):
            raise ServiceError("too_many_requests")
        try:
            return tuple(User(name=name, bcrypt=self._hash(password)) for name, password in users)
        finally:
            self._places.release()

    def _hash(self, password: Secret) -> str:
        return bcrypt.hashpw(password.reveal().encode(), bcrypt.gensalt(self._cost)).decode("ascii")
