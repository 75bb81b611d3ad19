"""How much nginx keeps of what is sent off the artifact route: real nginx, and a guard and an MLflow that answer at once."""

import os
import pwd
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import psutil
import pytest
import requests

from demo.ports import LOOPBACK, free_ports
from tests.box.parts import settings
from tests.support.box import DIES_WITH_US, until
from tracking_server import nginx

pytestmark = pytest.mark.box
LOG_BATCH, GATEWAY = "/mlflow/api/2.0/mlflow/runs/log-batch", "/mlflow/gateway/chat/completions"
ARTIFACT = "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/x"
LARGE, SENT = 60 * 1024**2, 100_000
CONNECTIONS = 256


class Listener(ThreadingUnixStreamServer):
    """Answers each request with the status that `answer` gives for it."""

    request_queue_size = 128

    def __init__(self, place: Path, answer: Callable[[BaseHTTPRequestHandler], int]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_response_only(answer(self))
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(str(place), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Once nginx has let go of its connections."""
        self.shutdown()
        self.server_close()


class Site:
    """A box's nginx. Who comes without a password is a stranger, whom the guard does not answer before `answered` is set."""

    def __init__(self, home: Path, held: ExitStack) -> None:
        self._held = held
        self.strangers = 0
        self.answered = threading.Event()
        (self._port,) = free_ports(1)
        for folder in ("run", "log"):
            (home / folder).mkdir()
        for name, answer in (("guard.sock", self._let_in), ("mlflow.sock", lambda _request: 200)):
            held.callback(Listener(home / "run" / name, answer).stop)
        text = nginx.nginx_text(
            settings(listen=f"{LOOPBACK}:{self._port}", allow_gateway=True), user=None if os.geteuid() else pwd.getpwuid(0).pw_name
        )
        (home / "run" / "nginx.conf").write_text(text)
        argv = [*DIES_WITH_US, "nginx", "-p", "./", "-e", "../log/nginx-error.log", "-c", "nginx.conf"]
        self._nginx = held.enter_context(subprocess.Popen(argv, cwd=home / "run"))
        held.callback(self._nginx.terminate)
        held.callback(self.answered.set)
        until(self._answers, seconds=20, what="nginx")

    def _let_in(self, request: BaseHTTPRequestHandler) -> int:
        if "Authorization" in request.headers:
            return 200
        self.strangers += 1
        self.answered.wait(60)
        return 401

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, self._port)) == 0

    def begin(self, path: str, length: int, *, password: bool = True) -> socket.socket:
        """A request whose body begins, and does not go on."""
        client = self._held.enter_context(socket.create_connection((LOOPBACK, self._port), timeout=30))
        who = "Authorization: Basic YTpi\r\n" if password else ""
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{who}Content-Length: {length}\r\n\r\n".encode() + b"x" * SENT)
        return client

    def begin_as_stranger(self, path: str, header: str) -> None:
        """A request whose body never comes."""
        client = self._held.enter_context(socket.create_connection((LOOPBACK, self._port), timeout=30))
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())

    def ask(self, method: str, path: str, body: Any, **headers: str) -> requests.Response:
        return requests.request(method, f"http://{LOOPBACK}:{self._port}{path}", data=body, headers=headers, auth=("a", "b"), timeout=30)

    def kept(self) -> int:
        """Bytes of bodies on the disk: of files that nginx has unlinked, so that they are seen nowhere else."""
        total = 0
        for child in psutil.Process(self._nginx.pid).children():
            for each in Path(f"/proc/{child.pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed meanwhile
                    total += each.stat().st_size if "nginx-body" in each.readlink().parts else 0
        return total


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(nginx, "BATCHES", 2)
    monkeypatch.setattr(nginx, "CONNECTIONS", CONNECTIONS)
    home = Path(tempfile.mkdtemp(prefix="box-", dir="/tmp"))
    with ExitStack() as held:
        held.callback(shutil.rmtree, home)
        yield Site(home, held)


def answered(clients: list[socket.socket]) -> list[socket.socket]:
    return select.select(clients, [], [], 0)[0]


@pytest.mark.parametrize("path", [LOG_BATCH, GATEWAY])
@pytest.mark.parametrize(("length", "most"), [(LARGE, nginx.LARGE_BODIES), (10 * SENT - 1, 2)])
def test_so_many_bodies_are_kept_and_the_next_is_told_to_come_again(site: Site, path: str, length: int, most: int) -> None:
    clients = [site.begin(path, length) for _ in range(most + 1)]
    (refused,) = until(lambda: answered(clients), seconds=20, what="an answer")
    head, _, text = refused.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 10\r\n" in head
    assert b"Too many large or unfinished requests" in text
    until(lambda: site.kept() >= most * (SENT - 32768), seconds=20, what="what is kept")
    assert site.kept() <= most * SENT
    assert answered([each for each in clients if each is not refused]) == []


def test_while_large_ones_are_on_their_way_all_others_get_through(site: Site) -> None:
    clients = [site.begin(LOG_BATCH, LARGE) for _ in range(nginx.LARGE_BODIES + 1)]
    until(lambda: answered(clients), seconds=20, what="an answer")
    assert site.ask("POST", LOG_BATCH, b"x" * 1_000_000).status_code == 503
    assert site.ask("POST", LOG_BATCH, iter([b"x"])).status_code == 503  # nobody knows how large it gets
    assert site.ask("POST", LOG_BATCH, b"x", **{"Content-Encoding": "gzip"}).status_code == 503  # likewise
    assert [site.ask("POST", LOG_BATCH, b"x" * size).status_code for size in (0, 9999, 10_000, 999_999)] == [200] * 4
    assert site.ask("PUT", ARTIFACT, b"x" * 2_000_000).status_code == 200
    assert site.ask("GET", LOG_BATCH, None).status_code == 200
    for each in clients:
        each.close()
    until(lambda: site.ask("POST", LOG_BATCH, b"x" * 1_000_000).status_code == 200, seconds=20, what="room")
    assert site.ask("POST", LOG_BATCH, iter([b"x"])).status_code == 200


def test_strangers_take_no_room(site: Site) -> None:
    for length in (LARGE, 10 * SENT - 1):
        for _ in range(nginx.LARGE_BODIES + 1):
            site.begin(LOG_BATCH, length, password=False)
    until(lambda: site.strangers == 2 * (nginx.LARGE_BODIES + 1), seconds=20, what="that the guard is asked")
    assert [site.ask("POST", LOG_BATCH, b"x" * size).status_code for size in (999_999, 1_000_000)] == [200] * 2
    assert site.kept() == 0


@pytest.mark.parametrize("path", ["/mlflow/", "/mlflow/static-files/x"])
def test_pages_take_no_body(site: Site, path: str) -> None:
    assert site.ask("GET", path, None).status_code == 200
    for body in (b"x" * 1000, iter([b"x" * 1000])):
        assert site.ask("POST", path, body).status_code == 413


@pytest.mark.parametrize("path", ["/mlflow/health", "/mlflow/version", "/mlflow/-/health", "/mlflow/-/sign-in", "/mlflow/-/sign-out"])
@pytest.mark.parametrize("header", ["Content-Length: 1", "Transfer-Encoding: chunked"])
def test_bodies_that_never_come_keep_nobody_out(site: Site, path: str, header: str) -> None:
    for _ in range(2 * CONNECTIONS):
        with suppress(ConnectionError):  # nginx has none left at this moment
            site.begin_as_stranger(path, header)

    def is_let_in() -> bool:
        try:
            return site.ask("GET", LOG_BATCH, None).status_code == 200
        except requests.ConnectionError:
            return False

    until(is_let_in, seconds=20, what="that somebody with a password gets in")
