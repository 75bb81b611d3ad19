"""What people ask for, as values: already valid in form, not yet known to be possible."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from cryptography.fernet import Fernet
from mlwf.secret import Secret

from backend.domain import StorageKey


@dataclass(frozen=True, kw_only=True)
class CreateWish:
    """A tracking server as somebody wants it; None: the site's default."""

    group: str
    env_name: str
    bucket: str
    key: StorageKey
    endpoint_url: str | None = None
    region: str | None = None
    artifact_access: str | None = None
    mlflow_version: str | None = None
    size: str | None = None
    idle_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class StorageWish:
    """Other keys for a server's bucket; None: what the server has now."""

    key: StorageKey
    endpoint_url: str | None = None
    region: str | None = None


def new_box_keys() -> Secret:
    """The keys that a server's MLflow needs for life, as ``config/keys.json`` holds them (docs/reference/box.md)."""
    return Secret(
        json.dumps(
            {
                "webhook_secret_encryption_key": Fernet.generate_key().decode("ascii"),  # MLflow takes a Fernet key here
                "crypto_kek_passphrase": secrets.token_urlsafe(32),
                "flask_secret_key": secrets.token_urlsafe(32),
            }
        )
    )
