"""What a plan works with: the world around the service, and one operation in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from mlwf.secret import Secret
from sqlalchemy.orm import Session

from backend.domain import Storage, StorageKey
from backend.files.snapshots import DatabaseCopies
from backend.plans.backoff import Backoff
from backend.plans.wanted import key_of, storage_of
from backend.ports import BoxFiles, Directory, ObjectStore, Runtime, Trial
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Server
from backend.settings import Settings
from backend.sure_time import SureTime

SLOT_SECONDS: Final = 1.0
"""How often one who waits for a place looks whether the service is told to end."""


class StoppingError(Exception):
    """The service is told to end: leave everything as it is, the next start goes on from there."""


class AwayError(Exception):
    """The runtime does not answer now: leave everything as it is, the plan is run again soon."""


def nothing(_point: str) -> None:
    """The hook that does nothing."""


@dataclass(frozen=True, kw_only=True)
class World:
    """All that the engine reaches, chosen by the wiring. ``at`` is told the name of every point that the engine passes."""

    registry: Registry
    runtime: Runtime
    boxes: BoxFiles
    kept: DatabaseCopies
    """Of deleted servers."""
    previous: DatabaseCopies
    """Databases from before an upgrade."""
    replaced: DatabaseCopies
    """Databases that an operation under way replaces."""
    trial: Trial
    store: ObjectStore
    directory: Directory
    keyring: Keyring
    settings: Settings
    start_slots: threading.Semaphore
    sure_time: SureTime
    """By which what is over is destroyed."""
    stop: threading.Event = field(default_factory=threading.Event)
    backoff: Backoff = field(default_factory=Backoff)
    at: Callable[[str], None] = nothing

    @property
    def copies(self) -> dict[str, DatabaseCopies]:
        """All three kinds of copies, by the names of their folders."""
        return {"kept": self.kept, "previous": self.previous, "replaced": self.replaced}

    def pause(self, seconds: float) -> None:
        """Wait, unless the service is told to end. Error: ``StoppingError``."""
        if self.stop.wait(seconds):
            raise StoppingError

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the few places for boxes that start: many at once on few cores would all be late. Error: ``StoppingError``."""
        while not self.start_slots.acquire(timeout=SLOT_SECONDS):
            self.pause(0)
        try:
            yield
        finally:
            self.start_slots.release()

    def is_over(self, until: datetime | None) -> bool:
        """Whether that time has surely come, so that what was kept until then can go for good."""
        sure = self.sure_time.now()
        return until is not None and sure is not None and until <= sure

    def kept_until(self, days: float) -> datetime:
        """Until when something is kept that is over after so many days from now."""
        return self.sure_time.not_before() + timedelta(days=days)

    def port_rests_until(self) -> datetime | None:
        """As ``kept_until``. None: it does not rest, and is free at once: that it is so late already is sure in an hour or two only."""
        days = self.settings.port_rest_days
        return self.kept_until(days) if days else None

    def server(self, server_id: str) -> Server | None:
        """The row as it is now, for reading only."""
        with self.registry.reading() as session:
            return session.get(Server, server_id)

    def address(self, server: Server) -> tuple[str, int]:
        """Where the server's box listens that is started now; one that runs may listen where it was wished before."""
        return self.settings.listen_address, server.port


@dataclass(frozen=True, kw_only=True)
class Work:
    """One operation under way, on one server."""

    world: World
    operation_id: str
    kind: str
    server_id: str
    requested_by: str
    request_id: str | None = None
    patient: bool
    """Whether it waits for a runtime that does not answer."""
    payload: dict[str, Any] = field(default_factory=dict)
    """What the operation brought with it. Holds secrets: never logged."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What its steps found out, for its end."""

    def __repr__(self) -> str:
        return f"Work({self.operation_id!r}, {self.server_id!r})"

    @property
    def box_directory(self) -> Path:
        return self.world.boxes.directory(self.server_id)

    def server(self) -> Server:
        """The row as it is now. It is there for as long as the operation lasts: only its end removes it."""
        row = self.world.server(self.server_id)
        if row is None:
            raise LookupError(f"server {self.server_id} has no row")
        return row

    def becoming(self) -> Server:
        """The row as it will be when the operation has succeeded: for reading only."""
        row = self.server()
        for name, value in self.payload.get("becomes", {}).items():
            setattr(row, name, value)
        return row

    def change(self, change: Callable[[Session, Server], None]) -> None:
        """Change the row, in a short transaction."""
        with self.world.registry.session() as session:
            change(session, session.get_one(Server, self.server_id))

    def new_storage(self, server: Server) -> tuple[Storage, StorageKey]:
        """The storage and key that the operation asks for: its payload's, else the server's own. The bucket never changes."""
        old = storage_of(server)
        if "access_key_id" not in self.payload:
            return old, key_of(server, self.world.keyring)
        storage = Storage(
            bucket=old.bucket,
            prefix=old.prefix,
            endpoint_url=self.payload.get("endpoint_url") or old.endpoint_url,
            region=self.payload.get("region") or old.region,
        )
        return storage, StorageKey(access_key_id=self.payload["access_key_id"], secret_access_key=Secret(self.payload["secret_access_key"]))


def read_payload(keyring: Keyring, stored: str | None) -> dict[str, Any]:
    """The payload of an operation as it was encrypted; nothing for none."""
    payload: dict[str, Any] = json.loads(keyring.decrypt(stored).reveal()) if stored else {}
    return payload
