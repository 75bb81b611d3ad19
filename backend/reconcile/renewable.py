"""Whether leases can be renewed now: each listener answers a request, the site's directory knows who holds a lease, and the registry has
room to note it.

A socket alone says nothing: the supervisor holds it, so that it can be connected to while the API hangs or ends again and again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from typing import Final

import requests
from mlwf.wire.transport import open_session
from sqlalchemy import select

from backend import listeners
from backend.errors import ServiceError
from backend.munge import Unmunge
from backend.ports import Directory
from backend.registry.database import Registry
from backend.registry.models import Lease
from backend.settings import Settings

log = logging.getLogger(__name__)

SECONDS: Final = 5.0
"""An API that does not answer its health within this time answers no renewal either."""
_ROOM: Final = 1024**2
_HEALTH: Final = "/api/v1/health"


class Renewable:
    """Asked at each sweep. Of the holders another one is looked up each time, since the service's own account is in no directory that
    could be away; what one failed look says goes for all leases, until they could be renewed for their own length again.
    """

    def __init__(self, *, settings: Settings, registry: Registry, directory: Directory) -> None:
        self._settings = settings
        self._registry = registry
        self._directory = directory
        self._munge = Unmunge(settings.munge_socket) if settings.munge_listen is not None else None
        self._asked = -1
        self._told: str | None = None

    def __call__(self) -> bool:
        """Whether it is so. Where nobody holds a lease nothing is asked, and nothing can be renewed."""
        holder = self._next_holder()
        if holder is None:
            return False
        why = self._why_not(holder)
        if why is not None and why != self._told:
            log.warning("nobody can renew a lease now, so time counts against none: %s", why)
        elif why is None and self._told is not None:
            log.info("leases can be renewed again")
        self._told = why
        return why is None

    def _next_holder(self) -> int | None:
        with self._registry.reading() as session:
            holders = sorted(set(session.scalars(select(Lease.uid).where(Lease.ended.is_(False)))))
        self._asked = next((uid for uid in holders if uid > self._asked), holders[0] if holders else -1)
        return self._asked if holders else None

    def _why_not(self, holder: int) -> str | None:
        for name, session, base in self._listeners():
            with session:
                if not answers(session, base):
                    return f"the part {name} does not answer"
        path = self._registry.path
        if path is not None and shutil.disk_usage(path.parent).free < _ROOM:
            return "the disk of the registry is full"
        try:
            if self._munge is not None:
                self._munge.try_it()
            self._directory.caller(uid=holder)
        except ServiceError as error:
            return None if error.code == "caller_unknown" else str(error)  # the directory answered: a user who is gone renews no more
        return None

    def _listeners(self) -> Iterator[tuple[str, requests.Session, str]]:
        yield ("api", *open_session(f"unix://{self._settings.socket}"))
        for name, address in listeners.addresses(self._settings).items():
            if name != "metrics":
                session = requests.Session()
                session.trust_env = False
                yield name, session, f"http://{address}"


def answers(session: requests.Session, base: str) -> bool:
    """Whether the API at that address answers."""
    try:
        return bool(session.get(base + _HEALTH, timeout=SECONDS).status_code == 200)
    except requests.RequestException:
        return False
