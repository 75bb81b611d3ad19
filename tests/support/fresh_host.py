"""A fresh host for heavy tests: a Debian of its own in a folder, with systemd as its first process and nothing but its own loopback.

Needs root, mmdebstrap and systemd-container (`bin/setup heavy`).
"""

import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.box import until

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("systemd", "systemd-sysv", "ca-certificates", "iproute2", "procps", "curl")
SITE_CAS = Path("/usr/local/share/ca-certificates")
BOOT_SECONDS = 90.0


class FreshHost:
    """`folder` holds the host's file system (`root`) and a copy of this repository (`/repo` there)."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._log = folder / "boot.log"
        self._repository = folder / "repo.git"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._nspawn_argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "-D", str(self.root)]
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(self.root)]
        subprocess.run(argv, check=True, capture_output=True)
        subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(self._repository)], check=True)
        for path in SITE_CAS.glob("*.crt"):  # of a proxy between here and the packages
            shutil.copy(path, self.root / SITE_CAS.relative_to("/"))

    def prepare(self, script: str) -> None:
        """Run it with this machine's network and without systemd: what comes from package registries is installed so."""
        asked = subprocess.run([Path(sys.executable).with_name("uv"), "cache", "dir"], check=True, capture_output=True, text=True)
        cache = asked.stdout.strip()
        Path(cache).mkdir(parents=True, exist_ok=True)
        binds = [f"--bind-ro={self._repository}:/repo", f"--bind={cache}:/uv-cache"]
        variables = {"UV_CACHE_DIR": "/uv-cache", "UV_LINK_MODE": "copy", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
        if ssl.get_default_verify_paths().cafile:
            variables["SSL_CERT_FILE"] = "/etc/ssl/certs/ca-certificates.crt"
        settings = [f"--setenv={name}={value}" for name, value in variables.items()]
        script = script.replace("systemctl disable --now", "systemctl disable")  # nothing runs yet
        whole = f"set -eu\nupdate-ca-certificates\nprintf '[safe]\\n directory = *\\n' >/root/.gitconfig\napt-get update\n{script}"
        argv = [*self._nspawn_argv, *binds, *settings, "/bin/bash", "-c", whole]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def boot(self) -> None:
        """Start it, and wait until systemd says that all is up."""
        argv = [*self._nspawn_argv, "--private-network", "--boot"]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._is_up, seconds=BOOT_SECONDS, what="the host's start")

    def inside(self, *argv: str | Path) -> list[str]:
        """That command on the host, as arguments for this machine; its network alone is entered where the program is ours."""
        variables = ["PATH=/opt/aihub/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"]
        entered = ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return [*entered, "--", "/usr/bin/env", "-i", *variables, *map(str, argv)]

    @property
    def leader(self) -> int:
        """The process id, here, of the host's first process."""
        assert self._nspawn is not None
        (first,) = psutil.Process(self._nspawn.pid).children()
        return int(first.pid)

    def run(self, script: str, *, user: str = "root", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell script on the host, as that user."""
        argv = ["/bin/bash", "-c", f"set -eu\n{script}"]
        if user != "root":
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env", *argv]
        done = subprocess.run(self.inside(*argv), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=180)
        assert not check or done.returncode == 0, f"{script}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """A file of the host."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text if isinstance(text, bytes) else text.encode())
        place.chmod(mode)

    def shut_down(self) -> None:
        """As its power button does."""
        if self._nspawn is None:
            return
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self._log.read_text(errors="replace")[-3000:]
        try:
            argv = self.inside("systemctl", "is-system-running")
        except ValueError:  # no first process yet
            return False
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() in {"running", "degraded"}


@contextmanager
def fresh_host() -> Iterator[FreshHost]:
    """A host that was made, not started."""
    folder = Path(tempfile.mkdtemp(prefix="host-", dir="/tmp"))
    host = None
    try:
        host = FreshHost(folder)
        yield host
    finally:
        if host is not None:
            host.shut_down()
        shutil.rmtree(folder, ignore_errors=True)
