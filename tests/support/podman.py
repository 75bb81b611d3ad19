"""Podman's Docker-compatible socket, by root, in a folder of its own: for what must work with it as with Docker."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker import Docker

SECONDS = 120.0
# Podman would raise both above what a machine without CAP_SYS_RESOURCE lets it.
_CONF = '[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=4096:4096"]\n'


@contextlib.contextmanager
def running_podman(docker: Docker, image: str) -> Iterator[Docker]:
    """A service with that image, taken from the daemon. Skips where there is no Podman."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    home = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))
    (home / "containers.conf").write_text(_CONF)
    environment = {**os.environ, "CONTAINERS_CONF": str(home / "containers.conf")}
    podman = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/run", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    try:
        docker.run("save", "--output", str(home / "image.tar"), image)
        load = [*podman, "load", "--quiet", "--input", f"{home}/image.tar"]
        subprocess.run(load, env=environment, check=True, capture_output=True, timeout=SECONDS)
        found = Docker(home)
        with (home / "log").open("ab") as log:
            service = subprocess.Popen([*podman, "system", "service", "--time", "0", found.host], env=environment, stdout=log, stderr=log)
        try:
            _wait(home / "docker.sock", service)
            (home / "docker.sock").chmod(0o660)
            home.chmod(0o755)
            yield found
        finally:
            service.terminate()
            service.wait(30)
    finally:
        subprocess.run([*podman, "system", "reset", "--force"], env=environment, check=False, capture_output=True, timeout=SECONDS)
        shutil.rmtree(home, ignore_errors=True)


def _wait(socket: Path, service: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SECONDS
    while not socket.exists():
        assert service.poll() is None, "podman ended"
        assert time.monotonic() < deadline, "podman has no socket"
        time.sleep(0.05)
