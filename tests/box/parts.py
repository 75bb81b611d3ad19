"""What the tests of the box's parts share."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.box import ROOT
from tracking_server.settings import Settings, from_mapping

LEAST: dict[str, Any] = {
    "server_id": "k3v9x2m7q4ab",
    "mlflow_version": "3.17.2",
    "listen": "127.0.0.1:21000",
    "public_hosts": ["mlflow01.example.org:21000"],
    "bucket": "bucket",
    "prefix": "mlflow/k3v9x2m7q4ab",
}


def settings(**changes: Any) -> Settings:
    return from_mapping({**LEAST, **changes})


class NoLoop:
    """Timers that never come."""

    def later(self, seconds: float, call: Any) -> None:
        return None


def run(script: str, python: Path = Path(sys.executable)) -> list[str]:
    done = subprocess.run([python, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout.split()
