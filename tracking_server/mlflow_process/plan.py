"""What the guard tells a launcher, read once from its standard input, so that no secret is in an argument or a declared environment."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracking_server.layout import Box
from tracking_server.settings import Settings, from_mapping


@dataclass(frozen=True)
class Plan:
    """`keys`: config/keys.json. `s3_credentials`: the text of config/s3/credentials."""

    box: Box
    settings: Settings
    keys: dict[str, str] = field(repr=False)
    s3_credentials: str = field(repr=False)

    @property
    def own_location(self) -> str:
        """Where this server's artifacts live in the object store."""
        return f"s3://{self.settings.bucket}/{self.settings.prefix}"

    @property
    def artifact_root(self) -> str:
        """Under which new experiments get their locations."""
        return self.own_location if self.settings.artifact_access == "direct" else "mlflow-artifacts:/"


def read_plan(text: str | bytes) -> Plan:
    document: dict[str, Any] = json.loads(text)
    return Plan(Box(Path(document["box"])), from_mapping(document["settings"]), document["keys"], document["s3_credentials"])


def environment_directory() -> Path:
    """Where tracking_server/install put this interpreter, with template.db and version.json."""
    return Path(sys.prefix)
