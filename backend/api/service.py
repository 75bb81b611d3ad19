"""The parts of the service that answer requests, as one value: the wiring makes it, the API and the admins' command use it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from backend.ports import Directory
from backend.reconcile import heartbeat
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import now
from backend.settings import Settings
from backend.wishes.access import Access
from backend.wishes.changes import Requests
from backend.wishes.leases import Leases

_MISSED_LOOKS: Final = 3
_LEAST_SECONDS: Final = 15.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """``runtime_name`` and ``runtime_isolates`` tell callers what runs their servers; the runtime itself is the reconciler's."""

    settings: Settings
    registry: Registry
    directory: Directory
    keyring: Keyring
    requests: Requests
    leases: Leases
    access: Access
    runtime_name: str
    runtime_isolates: bool


def reconciler_seen(settings: Settings) -> tuple[datetime | None, bool]:
    """When the reconciler last gave a sign of life, and whether that is recent enough for it to be well."""
    seen = heartbeat.seen_at(settings.run_dir)
    patience = max(_LEAST_SECONDS, _MISSED_LOOKS * settings.observe_seconds)
    return seen, seen is not None and abs(now() - seen) < timedelta(seconds=patience)  # ahead: by a clock that was set back
