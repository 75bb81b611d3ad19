"""The parts of the service that answer requests, as one value: the wiring makes it, the API and the admins' command use it."""

from __future__ import annotations

from dataclasses import dataclass

from backend.keyring import Keyring
from backend.ports import Directory
from backend.registry.database import Registry
from backend.requests import Requests
from backend.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Service:
    """``runtime_name`` and ``runtime_isolates`` tell callers what runs their servers; the runtime itself is the reconciler's."""

    settings: Settings
    registry: Registry
    directory: Directory
    keyring: Keyring
    requests: Requests
    runtime_name: str
    runtime_isolates: bool
