"""Podman's Docker-compatible socket in a folder of its own: by root, for what must work with it as with Docker, and without root."""

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
from tests.support.ordinary import USER

SECONDS = 120.0
FIRST_ID = 1_900_100_000
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
        found = Docker(home, beside=docker)
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


@contextlib.contextmanager
def rootless_podman() -> Iterator[str]:
    """The address of an ordinary user's Podman, without any image. His further ids stand in files that only that Podman sees."""
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "run").mkdir(mode=0o700)
        for place in (home, home / "run"):
            os.chown(place, USER.pw_uid, USER.pw_gid)
        (home / "ids").write_text(f"{USER.pw_name}:{FIRST_ID}:65536\n")
        environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run"}
        user = f"setpriv --reuid {USER.pw_uid} --regid {USER.pw_gid} --clear-groups"
        podman = f"podman --cgroup-manager cgroupfs --storage-driver vfs system service --time 0 unix://{folder}/docker.sock"
        ids = f"touch /etc/subuid /etc/subgid; mount --bind {folder}/ids /etc/subuid; mount --bind {folder}/ids /etc/subgid"
        # its own process namespace: what Podman leaves behind ends with it
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv = [*alone, "sh", "-ec", f"{ids}; cd {folder}; {user} {podman} || exit"]
        with (home / "log").open("ab") as log:
            service = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        try:
            _wait(home / "docker.sock", service)
            yield f"unix://{folder}/docker.sock"
        finally:
            service.kill()
            service.wait(30)


def _wait(socket: Path, service: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SECONDS
    while not socket.exists():
        assert service.poll() is None, "podman ended"
        assert time.monotonic() < deadline, "podman has no socket"
        time.sleep(0.05)
