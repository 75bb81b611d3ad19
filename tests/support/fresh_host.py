"""A fresh host for heavy tests: a Debian of its own in a folder, with systemd as its first process and nothing but its own loopback,
or with one cable to a site (tests.support.site_network) and what a Docker daemon needs.

Needs root, mmdebstrap and systemd-container (`bin/setup heavy`).
"""

import fcntl
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.box import until
from tests.support.site_network import HOST, MACHINE, SiteNetwork

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("systemd", "systemd-sysv", "ca-certificates", "iproute2", "procps", "curl")
SITE_CAS = Path("/usr/local/share/ca-certificates")
CACHE = Path("/var/cache/aihub")
BOOT_SECONDS = DOWN_SECONDS = 240.0  # a tenth of it on a machine that has nothing else to do
_CGROUPS = Path("/sys/fs/cgroup")
_IN_CGROUPS = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
_NETWORK = f"[Match]\nName=uplink\n[Network]\nAddress={HOST}/24\nGateway={MACHINE}\nLinkLocalAddressing=no\n"
_CGROUPS_UNIT = """# A host's control groups can be written; systemd-nspawn mounts those of version 1 read-only.
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -ec 'for one in /sys/fs/cgroup/*/; do if mountpoint -q "$one"; then mount -o remount,bind,rw "$one"; fi; done'
[Install]
WantedBy=sysinit.target
"""


class FreshHost:
    """`folder` holds the host's file system (`root`) and a copy of this repository (`/repo` there)."""

    def __init__(self, folder: Path, site: SiteNetwork | None) -> None:
        self._site = site
        self._name = f"aihub-{folder.name}"
        self.root = folder / "root"
        self._log = folder / "boot.log"
        self._repository = folder / "repo.git"
        self._cgroups: list[Path] = []
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._nspawn_argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "-D", str(self.root)]
        self.root.mkdir()
        subprocess.run(["tar", "-x", "--numeric-owner", "-C", self.root, "-f", _debian()], check=True, capture_output=True)
        subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(self._repository)], check=True)
        for path in SITE_CAS.glob("*.crt"):  # of a proxy between here and the packages
            shutil.copy(path, self.root / SITE_CAS.relative_to("/"))
        if site is not None:
            self.write("/etc/systemd/network/uplink.network", _NETWORK)
            self.write("/etc/systemd/system/cgroups.service", _CGROUPS_UNIT)
            units = ("systemd-networkd", "systemd-networkd-wait-online", "cgroups")
            subprocess.run(["systemctl", "--quiet", f"--root={self.root}", "enable", *units], check=True)

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
        whole = f"set -eu\nupdate-ca-certificates\nprintf '[safe]\\n directory = *\\n' >/root/.gitconfig\n{script}"
        argv = [*self._nspawn_argv, *binds, *settings, "/bin/bash", "-c", whole]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def boot(self) -> None:
        """Start it, and wait until systemd says that all is up."""
        cable = [] if self._site is None else [f"--network-veth-extra={self._site.plug}:uplink"]
        argv = [*self._nspawn_argv, "--private-network", *cable, "--system-call-filter=add_key bpf keyctl", "--boot"]
        self._cgroups = _own_cgroups(self._name)
        entered = ["/bin/sh", "-ec", _IN_CGROUPS, "sh", *map(str, self._cgroups), "--"]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen([*entered, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self._site is not None:
            plug = Path("/sys/class/net") / self._site.plug
            until(lambda: plug.exists() or self._has_ended(), what="the host's network card")
            self._site.connect()
        until(self._is_up, seconds=BOOT_SECONDS, what="the host's start")

    def inside(self, *argv: str | Path) -> list[str]:
        """That command on the host, as arguments for this machine; its network alone is entered where the program is ours."""
        variables = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"]
        entered = ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return [*entered, "--", "/usr/bin/env", "-i", *variables, *map(str, argv)]

    def in_its_network(self) -> list[str]:
        """What comes before a command of this machine that shall have the host's network."""
        return ["nsenter", "--target", str(self.leader), "--net", "--"]

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

    def journal(self, *match: str) -> str:
        """What the matching entries say; with everything that was written before this call, which the journal may not have read yet."""
        return self.run(f"journalctl --sync; journalctl --output=cat {' '.join(match)}").stdout

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
            self._nspawn.wait(DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self.cut_power()
        else:
            self._is_off()

    def cut_power(self) -> None:
        """Nothing on it has another moment."""
        os.kill(self.leader, signal.SIGKILL)
        self._is_off()

    def _is_off(self) -> None:
        assert self._nspawn is not None
        self._nspawn.wait()
        self._nspawn = None
        for cgroup in self._cgroups:
            for place, _, _ in os.walk(cgroup, topdown=False):
                Path(place).rmdir()

    def _has_ended(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self._log.read_text(errors="replace")[-3000:]
        return False

    def _is_up(self) -> bool:
        self._has_ended()
        try:
            argv = self.inside("systemctl", "is-system-running")
        except ValueError:  # no first process yet
            return False
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() in {"running", "degraded"}


def _debian() -> Path:
    """A minimal Debian with PACKAGES, made once on this machine."""
    archive = CACHE / f"host-bookworm-{zlib.crc32(' '.join(PACKAGES).encode()):08x}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            part = archive.with_suffix(".part.tar")
            argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(part)]
            subprocess.run(argv, check=True, capture_output=True)
            part.replace(archive)
    return archive


def _own_cgroups(name: str) -> list[Path]:
    """A control group below this process's in each hierarchy: two hosts at a time would take each other's units for their own."""
    made = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        hierarchy = _CGROUPS / (controllers.removeprefix("name=") or "unified")
        cgroup = (hierarchy if hierarchy.exists() else _CGROUPS) / path.lstrip("/") / name
        cgroup.mkdir()
        if controllers == "cpuset":  # it has none unless told
            for file in ("cpuset.cpus", "cpuset.mems"):
                (cgroup / file).write_text((cgroup.parent / file).read_text())
        made.append(cgroup)
    return made


@contextmanager
def fresh_host(site: SiteNetwork | None = None) -> Iterator[FreshHost]:
    """A host that was made, not started. With a site it has a cable to it, and may run Docker."""
    folder = Path(tempfile.mkdtemp(prefix="host-", dir="/tmp"))
    host = None
    try:
        host = FreshHost(folder, site)
        yield host
    finally:
        if host is not None:
            host.shut_down()
        shutil.rmtree(folder, ignore_errors=True)
