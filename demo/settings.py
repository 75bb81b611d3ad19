"""Where the demo keeps things and what of the machine it uses. The one module here that reads the environment."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError

MLFLOW_VERSION = "3.17.2"
PROCESS, DOCKER = "process", "docker"
ROOT = Path(__file__).resolve().parent.parent
# nginx is there on Debian, and not in every user's PATH.
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Settings:
    """`home`: everything of one demo, absolute. `python`: the demo's own interpreter. `environments`: a folder for each MLflow version.
    `idle_seconds`: after how long without work a tracking server sleeps. `runtime`: what the tracking servers shall be; None: what they
    are, in a new demo processes. `docker_host`: the daemon's address.
    """

    home: Path
    python: Path
    environments: Path
    path: str
    idle_seconds: int
    runtime: str | None
    docker_host: str

    @property
    def programs(self) -> Path:
        """The folder with weed, aihub, gunicorn and the mlwf commands."""
        return self.python.parent

    @property
    def box_programs(self) -> Path:
        """The folder with a `python` that has mlflow and scikit-learn."""
        return self.environments / f"mlflow-{MLFLOW_VERSION}" / "bin"

    def environment(self, **more: str) -> dict[str, str]:
        """A part's whole environment: nothing of the caller's own is handed on by accident."""
        return {
            "PATH": f"{self.programs}:{_SYSTEM_PATH}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            **more,
        }


def load() -> Settings:
    """DEMO_HOME (default `var/demo` of the project) names the folder; a relative one counts from the current directory.
    DEMO_IDLE_SECONDS, DEMO_RUNTIME, DOCKER_HOST: see above. Raises DemoError.
    """
    home = os.environ.get("DEMO_HOME")
    return Settings(
        home=Path(home).absolute() if home else ROOT / "var" / "demo",
        python=Path(sys.executable),
        environments=ROOT / "var" / "envs",
        path=os.environ.get("PATH", _SYSTEM_PATH),
        idle_seconds=_seconds("DEMO_IDLE_SECONDS", 60),
        runtime=_runtime("DEMO_RUNTIME"),
        docker_host=os.environ.get("DOCKER_HOST") or "unix:///run/docker.sock",
    )


def _runtime(name: str) -> str | None:
    word = os.environ.get(name) or None
    if word not in {None, PROCESS, DOCKER}:
        raise DemoError(f"{name} is {word!r}, which runs no tracking servers: write {name}={PROCESS} or {name}={DOCKER}")
    return word


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise DemoError(f"{name} is {text!r}, which is no whole number of seconds: write for example {name}={default}")
    return int(text)
