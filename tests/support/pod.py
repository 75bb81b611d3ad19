"""One box as two containers, by plain docker."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests

from tests.support.box import Box, environment, make_box, until
from tests.support.docker import Docker, DockerError
from tests.support.s3 import S3Store

G, M = 61001, 61002
HARDENED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--pids-limit", "64", "--restart", "unless-stopped")
MEMORY = 450 << 20


class Pod:
    """One box as two containers. `box` talks to it; its own process stays None."""

    def __init__(self, docker: Docker, image: str, box: Box) -> None:
        self.docker = docker
        self.image = image
        self.box = box
        name = f"aihub-test-{uuid.uuid4().hex[:8]}"
        self.gate, self.mlflow = f"{name}-gate", f"{name}-mlflow"

    def start(self) -> None:
        home = self.box.home
        for folder, owner in (("config", G), ("run", G), ("log", G), ("data", M), ("tmp", M), ("spawn", M)):
            (home / folder).mkdir(mode=0o711 if folder == "spawn" else 0o700, exist_ok=True)
            os.chown(home / folder, owner, owner)
        for path in (home / "config").rglob("*"):
            os.chown(path, G, G)
        # The object store of the tests listens on loopback only; who may reach what is the runtime's to test.
        self._run(self.mlflow, M, ("data", "tmp", "spawn"), "--network", "host", "--memory", str(MEMORY), last=("mlflow", str(G)))
        publish = f"127.0.0.1:{self.box.port}:{self.box.port}"
        self._run(self.gate, G, ("config:ro", "run", "log", "spawn:ro"), "--publish", publish, "--memory", "128m", last=("gate",))
        until(self.answers, what="the gate's answer")

    def _run(self, name: str, uid: int, folders: tuple[str, ...], *options: str, last: tuple[str, ...]) -> None:
        mounts = [option for folder in folders for option in ("--volume", f"{self.box.home}/{_inside(folder)}")]
        self.docker.run("run", "--detach", "--name", name, *HARDENED, "--user", f"{uid}:{uid}", *options, *mounts, self.image, *last)

    def answers(self) -> bool:
        try:
            return bool(self.box.health()["server_id"])
        except (requests.RequestException, KeyError):
            return False

    def processes(self, name: str) -> dict[int, str]:
        """Process ids, as the host has them, and command lines."""
        lines = self.docker.run("top", name, "-o", "pid,args").splitlines()[1:]
        return {int(pid): arguments for pid, arguments in (line.split(None, 1) for line in lines)}

    def mlflow_pid(self) -> int:
        return next(pid for pid, arguments in self.processes(self.mlflow).items() if "mlflow_process" in arguments)

    def remove(self) -> None:
        for name in (self.gate, self.mlflow):
            with suppress(DockerError):
                self.docker.run("rm", "--force", name)
        self.box.remove()


def _inside(folder: str) -> str:
    name, _, mode = folder.partition(":")
    return f"{name}:/box/{name}" + (f":{mode}" if mode else "")


@contextmanager
def running_pod(docker: Docker, image: str, store: S3Store, settings: dict[str, Any]) -> Iterator[Pod]:
    """It sleeps soon. `settings`: how it reaches that store."""
    box = make_box(environment(), idle_seconds=3, **settings)
    box.write_settings(listen=f"0.0.0.0:{box.port}", drain_seconds=5)
    box.write_credentials(store.owner.access_key, store.owner.secret_key)
    pod = Pod(docker, image, box)
    try:
        pod.start()
        yield pod
    finally:
        pod.remove()
