"""Names inside a box's directory. The guard and nginx run in `run/`, where these five are: a socket's path may not be long."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MLFLOW_SOCKET = "mlflow.sock"
GUARD_SOCKET = "guard.sock"
NGINX_CONF = "nginx.conf"
LOCK = "guard.lock"
SPENT = "spent"


class Box(NamedTuple):
    """One box's directory, absolute."""

    home: Path

    @property
    def config(self) -> Path:
        return self.home / "config"

    @property
    def settings(self) -> Path:
        return self.config / "settings.json"

    @property
    def users(self) -> Path:
        return self.config / "users.json"

    @property
    def ticket_keys(self) -> Path:
        return self.config / "ticket_keys.json"

    @property
    def tokens(self) -> Path:
        return self.config / "tokens.json"

    @property
    def revoked(self) -> Path:
        return self.config / "revoked.json"

    @property
    def s3_credentials(self) -> Path:
        return self.config / "s3" / "credentials"

    @property
    def keys(self) -> Path:
        return self.config / "keys.json"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def database(self) -> Path:
        return self.home / "data" / "mlflow.db"

    @property
    def tmp(self) -> Path:
        return self.home / "tmp"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def log(self) -> Path:
        return self.home / "log"
