"""Real boxes for tests: a directory as the service would write it, and its guard as a process."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import psutil
import requests
from cryptography.fernet import Fernet

from demo.ports import LOOPBACK, free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
MLFLOW_VERSION, OLDEST_VERSION = "3.17.2", "3.15.0"  # the newest and the oldest of tracking_server/versions
USER, PASSWORD = "alice", "a right password"
DEADLINE = 120.0
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
"""Before a command: nothing is left where the test run itself is killed, or ends before its fixtures do (Ctrl-C with several processes)."""
NOTICED = 20.0
"""Until a changed file must be in force on a busy machine. On one that is not, two seconds: see `seconds_until`."""
STARTERS = ["child", "spawner"]
"""Who starts MLflow: the guard itself, or another container's first process. For the fixture `own_box`, with `indirect=True`."""


def environment(version: str = MLFLOW_VERSION) -> Path:
    """The environment of the box: AIHUB_BOX_ENV, or the one that `make envs` makes. Made here when it is not there."""
    if os.environ.get("AIHUB_BOX_ENV") and version == MLFLOW_VERSION:
        return Path(os.environ["AIHUB_BOX_ENV"])
    place = ROOT / "var" / "envs" / f"mlflow-{version}"
    subprocess.run([ROOT / "tracking_server" / "install", version, place], check=True)
    return place


def version_of(place: Path) -> str:
    """MLflow's version in an environment."""
    return str(json.loads((place / "version.json").read_text())["mlflow_version"])


def until(condition: Callable[[], Any], *, seconds: float = DEADLINE, what: str = "the condition") -> Any:
    """The condition's first true value; it is asked again and again. AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} was not so after {seconds} s"
        time.sleep(0.02)


def seconds_until(condition: Callable[[], Any], *, what: str) -> float:
    """How long a change that was made just now took to be in force. Of several in a row the least is what the guard needs, and not what a
    busy machine adds; but for the first, which may have come just before the guard's next look: the others came just after one.
    """
    began = time.monotonic()
    until(condition, seconds=NOTICED, what=what)
    return time.monotonic() - began


def users_document(users: dict[str, str], *, cost: int = 4) -> str:
    entries = [{"name": name, "bcrypt": bcrypt.hashpw(word.encode(), bcrypt.gensalt(cost)).decode()} for name, word in users.items()]
    return json.dumps({"users": entries})


@dataclass
class Box:
    """One box. `settings` is what is written to settings.json at `write`."""

    home: Path
    port: int
    environment: Path
    settings: dict[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    spawned: bool = False  # MLflow is started by a spawner, as in a container, and not by the guard
    spawner: "subprocess.Popen[bytes] | None" = None
    within: Sequence[str] = ()  # a command that runs the guard, such as one that gives it mounts of its own

    @property
    def origin(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """What clients use as tracking URI."""
        return f"{self.origin}/mlflow"

    @property
    def auth(self) -> tuple[str, str]:
        return (USER, PASSWORD)

    def replace(self, name: str, text: str) -> None:
        """Replace a file of `config/` by rename, 0600, as the service does."""
        place = self.home / "config" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(place.name + ".part")
        part.touch(mode=0o600)
        part.write_text(text)
        part.replace(place)

    def write_settings(self, **changes: Any) -> None:
        self.settings.update(changes)
        self.replace("settings.json", json.dumps(self.settings))

    def write_users(self, users: dict[str, str], *, cost: int = 4) -> None:
        self.replace("users.json", users_document(users, cost=cost))

    def write_credentials(self, access_key: str, secret_key: str) -> None:
        self.replace("s3/credentials", f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")

    def start(self) -> None:
        """Start the guard and wait until it answers."""
        self.spawn()
        until(self.answers, what="the box's health answer")

    def spawn(self) -> None:
        options: list[str | Path] = ["--spawner", self.home / "spawn" / "spawn.sock"] if self.spawned else []
        if self.spawned and (self.spawner is None or self.spawner.poll() is not None):
            self.start_spawner()
        argv: list[str | Path] = [*DIES_WITH_US, *self.within, self.environment / "bin" / "python", "-P"]
        argv += ["-m", "tracking_server", *options, self.home]
        with (self.home / "guard.stderr").open("ab") as output:
            self.process = subprocess.Popen(argv, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def start_spawner(self, guard_uid: int | None = None) -> None:
        """As the container's entry does, for this user id unless said otherwise."""
        (self.home / "spawn").mkdir(mode=0o711, exist_ok=True)
        script, uid = ROOT / "tracking_server" / "spawner.py", os.getuid() if guard_uid is None else guard_uid
        argv: list[str | Path] = [*DIES_WITH_US, self.environment / "bin" / "python", "-I", "-S", script, str(uid), self.home]
        with (self.home / "guard.stderr").open("ab") as output:
            self.spawner = subprocess.Popen(argv, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.last_words()
        try:
            return bool(self.health()["server_id"] == self.settings["server_id"])
        except (requests.RequestException, KeyError):
            return False

    def last_words(self) -> str:
        logs = [self.home / "guard.stderr", *sorted((self.home / "log").glob("*.log"))]
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists())

    def health(self) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/-/health", timeout=10)
        document: dict[str, Any] = answer.json()
        return document

    def wait_state(self, *states: str, seconds: float = DEADLINE) -> None:
        try:
            until(lambda: self.health()["state"] in states, seconds=seconds, what=f"the state {states}")
        except (AssertionError, requests.RequestException) as error:
            error.add_note(self.last_words())
            raise

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request as the registered user; `path` counts from /mlflow."""
        options.setdefault("auth", self.auth)
        timeout = options.pop("timeout", 120)
        try:
            return requests.request(method, f"{self.url}{path}", timeout=timeout, **options)
        except requests.Timeout as error:
            error.add_note(f"{self.last_words()}\n{self.stacks()}")
            raise

    def api(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """As `request`, under /api/2.0/mlflow; the answer must be 200 and JSON."""
        answer = self.request(method, f"/api/2.0/mlflow/{path}", **options)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:2000]}\n{self.last_words()}"
        document: dict[str, Any] = answer.json()
        return document

    def processes(self) -> list[psutil.Process]:
        """The guard, the spawner where there is one, and all under them."""
        roots = [psutil.Process(each.pid) for each in (self.process, self.spawner) if each is not None]
        return [process for root in roots for process in (root, *root.children(recursive=True))]

    def stacks(self) -> str:
        """What each thread of each process of MLflow's does now, as they write it into their log themselves."""
        log = self.home / "log" / "mlflow.log"
        if not log.exists():
            return ""  # it was never started
        before = log.stat().st_size
        processes = self.find_all("mlflow_process")
        for each in processes:
            written = log.stat().st_size
            each.send_signal(signal.SIGUSR1)
            until(lambda written=written: log.stat().st_size > written, seconds=10, what=f"the stack of {each.pid}")  # type: ignore[misc]
        with log.open(errors="replace") as file:
            file.seek(before)
            return file.read()

    def find(self, text: str) -> psutil.Process:
        """The one process of the box whose command line has the text."""
        (found,) = self.find_all(text)
        return found

    def find_all(self, text: str) -> list[psutil.Process]:
        return [process for process in self.processes() if text in command_line(process)]

    def mlflow_process(self) -> psutil.Process:
        return self.find("tracking_server.mlflow_process")

    def stop(self, seconds: float = 90) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def remove(self) -> None:
        for process in (self.process, self.spawner):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def make_box(place: Path, *, cost: int = 4, **settings: Any) -> Box:
    """A new box's directory, not started, with the user `USER`. `settings` go over usual ones."""
    home = Path(tempfile.mkdtemp(prefix="box-", dir="/tmp"))
    home.chmod(0o700)
    (port,) = free_ports(1)
    usual = {
        "server_id": "k3v9x2m7q4ab",
        "mlflow_version": version_of(place),
        "listen": f"{LOOPBACK}:{port}",
        "public_hosts": [f"{LOOPBACK}:{port}"],
        "bucket": "no-such-bucket",
        "prefix": "mlflow/k3v9x2m7q4ab",
        "endpoint_url": f"http://{LOOPBACK}:9",
        "drain_seconds": 20,
    }
    box = Box(home, port, place)
    box.write_settings(**{**usual, **settings})
    box.write_users({USER: PASSWORD}, cost=cost)
    box.write_credentials("none", "none")
    keys = {
        "webhook_secret_encryption_key": Fernet.generate_key().decode(),
        "crypto_kek_passphrase": secrets.token_hex(32),
        "flask_secret_key": secrets.token_hex(32),
    }
    box.replace("keys.json", json.dumps(keys))
    return box


def command_line(process: psutil.Process) -> str:
    """Of a process that may end at any time: then nothing."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is one, too
        return ""


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run."""
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found
