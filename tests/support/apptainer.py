"""Apptainer for heavy tests, run as an ordinary user; a base image made of Debian's packages; a registry that serves it on loopback.

Needs root and what `bin/setup heavy` installs. Apptainer itself is put into /var/cache/aihub/apptainer by `bin/apptainer-for-tests`.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from demo.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
CACHED = Path("/var/cache/aihub")
NOBODY = 65534
# The user's Python must be one that an ordinary user can run; root's own may lie in /root.
PYTHONS = ("/usr/bin/python3", os.path.realpath(sys.executable))
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class GroundError(Exception):
    """What the tests stand on cannot be made; the text is what the program said."""


@dataclass(frozen=True)
class Ground:
    """A container tool and an ordinary user with a home of his own. `base`: a docker-archive with Debian's Python.

    `entry`: root's command in front of all that the user starts, where the tool needs one.
    """

    commands: Path
    home: Path
    base: Path
    python: str
    modules: tuple[Path, ...]
    tool: str = "apptainer"
    entry: tuple[str, ...] = ()

    def environment(self, **more: str) -> dict[str, str]:
        """The user's, without anything of ours."""
        plain = {
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "MLWF_CACHE": str(self.home / "cache"),
            "PYTHONPATH": ":".join(map(str, self.modules)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if Path(CERTIFICATES).exists():
            plain["SSL_CERT_FILE"] = CERTIFICATES
        return plain | more

    def start(self, argv: Sequence[str | Path], **more: str) -> "subprocess.Popen[str]":
        """Starts a program as the user, in his home."""
        return subprocess.Popen(
            [*self.entry, *_as_user(), *map(str, argv)], env=self.environment(**more), cwd=self.home, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, argv: Sequence[str | Path], *, seconds: float = 170.0, **more: str) -> "subprocess.CompletedProcess[str]":
        """Runs a program to its end, as the user."""
        process = self.start(argv, **more)
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def create(self, *options: str | Path) -> list[str]:
        """The argv of mlwf_create_image with these options."""
        return [self.python, "-c", "from mlwf.cli.create_image import main; main()", *map(str, options)]

    def give(self, folder: Path) -> Path:
        """Makes a tree the user's own."""
        for path in (folder, *folder.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        return folder


def apptainer_ground() -> contextlib.AbstractContextManager[Ground]:
    """Makes what is not there yet (about a minute the first time on a machine) and removes the user's home at the end."""
    return ground_with(Path(checked([str(ROOT / "bin" / "apptainer-for-tests"), str(CACHED / "apptainer")]).splitlines()[-1]))


@contextlib.contextmanager
def ground_with(commands: Path, tool: str = "apptainer", entry: tuple[str, ...] = ()) -> Iterator[Ground]:
    """An ordinary user with `commands` first in PATH; his home is removed at the end."""
    base = base_archive()
    above = Path(tempfile.mkdtemp(prefix="g-", dir="/tmp"))
    above.chmod(0o755)
    home = above / "home"
    home.mkdir()
    try:
        ground = Ground(commands, home, base, _usable_python(), _modules(above), tool, entry)
        ground.give(home)
        yield ground
    finally:
        shutil.rmtree(above, ignore_errors=True)


def _modules(above: Path) -> tuple[Path, ...]:
    """mlwf and what it imports, copied where the checkout is in a folder that only its owner enters."""
    found = (ROOT / "mlwf" / "src", Path(sysconfig.get_path("purelib")))
    if all(map(_reachable, found)):
        return found
    copied = tuple(Path(shutil.copytree(each, above / f"modules-{number}")) for number, each in enumerate(found))
    (copied[1] / "bin").mkdir(exist_ok=True)
    shutil.copy2(Path(sys.executable).parent / "uv", copied[1] / "bin" / "uv")
    return copied


def base_archive() -> Path:
    """A docker-archive with Debian and its Python, made once on a machine."""
    CACHED.mkdir(parents=True, exist_ok=True)
    archive = CACHED / "base-python-bookworm-docker.tar"
    with (CACHED / "base-python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            layer = CACHED / "base-python.part.tar"
            checked(
                ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(layer)]
            )
            with tarfile.open(layer) as tar:
                status = tar.extractfile("./var/lib/dpkg/status")
                found = re.search(rb"Package: python3\.11-minimal\n(?:.+\n)*?Version: ([0-9.]+)", status.read() if status else b"")
            (CACHED / "base-python.version").write_text(found[1].decode() if found else "")
            as_docker_archive(layer, archive)
            layer.unlink()
    return archive


def base_python() -> str:
    """The exact version of the base's Python."""
    return (CACHED / "base-python.version").read_text()


def as_docker_archive(layer: Path, archive: Path, *env: str) -> None:
    """A root file system as what `docker save` writes. `env`: variables that it sets."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps({
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "OF_THE_BASE=kept", *env], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "2026-01-01T00:00:00Z"}],
    }).encode()  # fmt: skip
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["base:1"], "Layers": [f"{digest}/layer.tar"]}]).encode()
    partial = archive.with_suffix(".part")
    with tarfile.open(partial, "w") as tar:
        for member, content in ((name, config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(f"{digest}/layer.tar")
        entry.size = layer.stat().st_size
        with layer.open("rb") as file:
            tar.addfile(entry, file)
    partial.rename(archive)


@contextlib.contextmanager
def registry(ground: Ground) -> Iterator[str]:
    """Debian's docker-registry on a free port of loopback, with the base as base:1; gives HOST:PORT."""
    folder = Path(tempfile.mkdtemp(prefix="registry-", dir="/tmp"))
    (port,) = free_ports(1)
    settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder / "data")}}, "http": {"addr": f"127.0.0.1:{port}"}}
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/v2/", process)
        address = f"127.0.0.1:{port}"
        copy = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
        checked([*copy, f"docker-archive:{ground.base}", f"docker://{address}/base:1"])
        yield address
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise GroundError(f"no registry answers at {url}")
        time.sleep(0.05)


def _as_user() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []


def _reachable(folder: Path) -> bool:
    """Whether an ordinary user gets there."""
    return os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def _usable_python() -> str:
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for path in PYTHONS:
        with contextlib.suppress(OSError):
            said = subprocess.run(
                [*_as_user(), path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, text=True, check=False,
            )  # fmt: skip
            if said.stdout.strip() == minor:
                return path
    raise GroundError(f"no Python {minor} that an ordinary user can run: looked at {', '.join(PYTHONS)}")


def processes_with(text: str) -> list[str]:
    """Command lines of all other processes that have that text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(line)
    return found


def checked(argv: list[str]) -> str:
    """What a program said. Raises GroundError."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GroundError(f"{argv[0]} ended with status {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
