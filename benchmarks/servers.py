"""What the benchmarks start and ask: MLflow with its defaults, MLflow alone on a socket, a box; and a client that adds little itself."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from demo.ports import LOOPBACK, free_ports
from tests.support.box import Box, make_box

BCRYPT_COST = 12
SEARCH = ("/api/2.0/mlflow/experiments/search", {"max_results": 1})


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket, with the Host header of a TCP port."""

    def __init__(self, path: Path, host: str, port: int) -> None:
        super().__init__(host, port, timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One kept connection, as MLflow's own client has; a request's time is until its whole answer is read."""

    def __init__(
        self, port: int, prefix: str, auth: tuple[str, str] | None = None, *, unix: Path | None = None, host: str = LOOPBACK
    ) -> None:
        self._connection = UnixConnection(unix, host, port) if unix else http.client.HTTPConnection(host, port, timeout=300)
        self._prefix = prefix
        self.host, self.port = host, port
        self.headers = {"Content-Type": "application/json"}
        if auth:
            self.headers["Authorization"] = "Basic " + b64encode(":".join(auth).encode()).decode()

    def close(self) -> None:
        """The next request opens it again: servers close what was quiet for some seconds."""
        self._connection.close()

    def post(self, path: str, document: object) -> dict[str, object]:
        self._connection.request("POST", self._prefix + path, json.dumps(document), self.headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:300]!r}")
        found: dict[str, object] = json.loads(body)
        return found

    def seconds(self, path: str, document: object) -> float:
        started = time.perf_counter()
        self.post(path, document)
        return time.perf_counter() - started

    def first_answer(self) -> None:
        """Ask until the first 200; a refused connection is tried again."""
        deadline = time.monotonic() + 180
        while True:
            try:
                self.post(*SEARCH)
            except (OSError, http.client.HTTPException, RuntimeError):
                self.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def pss_megabytes(pid: int) -> float:
    """Of a process and all under it."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        total += int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


@contextmanager
def started(argv: list[str | Path], folder: Path, variables: dict[str, str]) -> Iterator[int]:
    """A program in a group of its own, ended with it."""
    usual = {"PATH": f"{Path(argv[0]).parent}:/usr/bin:/bin", "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "LANG": "C.UTF-8"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=folder, env={**usual, **variables}, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None or number is signal.SIGKILL:
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    break
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def default_server(place: Path, folder: Path) -> Iterator[tuple[int, Client]]:
    """`mlflow server` with its defaults (4 workers, job execution), on a new database."""
    (port,) = free_ports(1)
    argv: list[str | Path] = [place / "bin" / "mlflow", "server", "--host", LOOPBACK, "--port", str(port)]
    argv += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    with started(argv, folder, {}) as pid:
        yield pid, Client(port, "")


@contextmanager
def alone(place: Path, folder: Path) -> Iterator[Client]:
    """MLflow's application by itself: one uvicorn worker on a Unix socket, as the box has it; the box's own template as database."""
    at = folder / "mlflow.sock"
    shutil.copyfile(place / "template.db", folder / "mlflow.db")
    subprocess.run(
        [
            place / "bin" / "python",
            "-c",
            "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('pragma journal_mode=wal')",
            folder / "mlflow.db",
        ],
        check=True,
    )
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    argv: list[str | Path] = [place / "bin" / "python", "-m", "uvicorn", "--uds", at]
    argv += ["--log-level", "warning", "--no-access-log", "mlflow.server.fastapi_app:app"]
    with started(argv, folder, variables):
        client = Client(80, "", unix=at)
        client.first_answer()
        yield client


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_box(place: Path, **settings: object) -> Iterator[Box]:
    box = make_box(place, cost=BCRYPT_COST, **settings)
    try:
        yield box
    finally:
        if box.process is not None and box.process.poll() is None:
            box.stop()
        box.remove()
