"""Passwords of BASIC-auth users: hashed in the request, so that the plain ones are never stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import bcrypt
from mlwf.secret import Secret

from backend.domain import User
from backend.errors import ServiceError

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
        with self._place():
            return tuple(User(name=name, bcrypt=self._hash(password)) for name, password in users)

    def keeps_one(self, users: Sequence[tuple[str, Secret]], rows: Sequence[Mapping[str, str]]) -> bool:
        """Whether one of them has the password that it had, by those names and hashes. Error: ``too_many_requests``."""
        before = {row["name"]: row["bcrypt"] for row in rows}
        with self._place():
            return any(name in before and bcrypt.checkpw(password.reveal().encode(), before[name].encode()) for name, password in users)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ServiceError("too_many_requests")
        try:
            yield
        finally:
            self._places.release()

    def _hash(self, password: Secret) -> str:
        return bcrypt.hashpw(password.reveal().encode(), bcrypt.gensalt(self._cost)).decode("ascii")
