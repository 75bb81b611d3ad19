"""The real service, started as an admin starts it, in a folder of its own; and raw requests to its socket, as any uid."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket as net
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlwf.client import Client

from demo.ports import free_range
from tests.service.edge.world import fake_environment
from tests.support.account import account

AIHUB = str(Path(sys.executable).with_name("aihub"))
SECONDS = 120.0


def until(condition: Callable[[], Any], *, seconds: float = SECONDS, what: str = "it") -> Any:
    """The condition's first true value, asked again and again."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} was not so after {seconds} s"
        time.sleep(0.02)
    return value


@dataclass
class Live:
    """A service. ``settings`` are written to its file at ``configure``; ``within``: what its command begins with."""

    home: Path
    settings: dict[str, Any] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def file(self) -> Path:
        return self.home / "settings.yml"

    @property
    def log_file(self) -> Path:
        return self.home / "log"

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def socket(self) -> Path:
        return Path(self.settings["socket"])

    @property
    def state(self) -> Path:
        return Path(self.settings["state_dir"])

    def configure(self, **changes: Any) -> None:
        self.settings.update(changes)
        self.file.write_text(yaml.safe_dump(self.settings))

    def aihub(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "AIHUB_SETTINGS": str(self.file), "COLUMNS": "200", "LANG": "C.UTF-8"}
        done = subprocess.run([AIHUB, *argv], env=environment, cwd=self.home, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}\n{self.log[-3000:]}"
        return done

    def run(self, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        """`aihub serve` with these options, not waited for."""
        environment = {"PATH": os.environ["PATH"], "AIHUB_SETTINGS": str(self.file), "LANG": "C.UTF-8", **variables}
        with self.log_file.open("ab") as log:
            argv = [*self.within, "setpriv", "--pdeathsig", "TERM", AIHUB, "serve", *options]
            return subprocess.Popen(argv, env=environment, cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and wait until it answers and its reconciler lives."""
        self.process = self.run()
        try:
            until(self.is_well, what="the service's health")
        except AssertionError as error:
            error.add_note(self.log[-4000:])
            raise

    def is_well(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.log[-4000:]
        try:
            return self.ask("GET", "/health")[1].get("status") == "ok"
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(SECONDS)
        self.process = None
        return status

    def parts(self) -> list[psutil.Process]:
        """All processes of the service, the supervisor first; boxes are not among them."""
        assert self.process is not None
        found = [psutil.Process(self.process.pid)]
        for part in found[0].children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
                if "backend.serving.serve" in part.cmdline():
                    found.append(part)
        return found

    def part(self, name: str) -> psutil.Process:
        return next(each for each in self.parts() if each.cmdline()[3:5] == ["backend.serving.serve", name])

    def other_part(self, old: psutil.Process, name: str) -> bool:
        """Whether another process is that part now."""
        return any(each.pid != old.pid and each.cmdline()[3:5] == ["backend.serving.serve", name] for each in self.parts())

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request."""
        return parsed(self.raw(request(method, path, body, **headers)))

    def raw(self, data: bytes, *, seconds: float = SECONDS) -> bytes:
        """Everything that is answered to these bytes."""
        with self.connection() as connection:
            return _exchange(connection, data, seconds)

    def connection(self) -> net.socket:
        made = net.socket(net.AF_UNIX)
        try:
            made.connect(str(self.socket))
        except OSError:
            made.close()
            raise
        return made

    def ask_as(self, uid: int, data: bytes) -> tuple[int, dict[str, Any]]:
        """The same as another uid, without groups (needs root). Who that was, the kernel notes when the connection is made."""
        with account(uid):
            connection = self.connection()
        with connection:
            return parsed(_exchange(connection, data, SECONDS))

    def client(self) -> Client:
        return Client(f"unix://{self.socket}", language="en", timeout=20)

    def remove(self) -> None:
        """End the service and its boxes, by the process ids that it knows."""
        if self.process is not None:
            self.stop()
        for lock in self.state.glob("servers/*/run/guard.lock"):
            text = lock.read_text().strip()
            if text.isdigit() and psutil.pid_exists(int(text)):
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
                    guard = psutil.Process(int(text))
                    if "tracking_server" in " ".join(guard.cmdline()):
                        guard.terminate()
                        guard.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def live_service(*, within: tuple[str, ...] = (), **changes: Any) -> Iterator[Live]:
    """A service that was initialised, not started. Its socket can be reached by every uid."""
    home = Path(tempfile.mkdtemp(prefix="hub-", dir="/tmp"))
    home.chmod(0o755)
    (home / "open").mkdir(mode=0o755)
    fake_environment(home / "envs")
    first = free_range(8)
    live = Live(home, within=within)
    live.configure(
        **{
            "state_dir": str(home / "state"),
            "socket": str(home / "open" / "service.sock"),
            "envs_dir": str(home / "envs"),
            "inside_host": "127.0.0.1",
            "allow_unisolated": True,
            "port_first": first,
            "port_last": first + 7,
            "observe_seconds": 0.5,
            "group_area": str(home / "groups"),
            **changes,
        }
    )
    try:
        live.aihub("init")
        yield live
    finally:
        live.remove()


def request(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """An HTTP request as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} /api/v1{path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if body is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer; (0, {}) for none."""
    if not answer:
        return 0, {}
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


def _exchange(connection: net.socket, data: bytes, seconds: float) -> bytes:
    connection.settimeout(seconds)
    connection.sendall(data)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
