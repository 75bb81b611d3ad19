"""Downloads through a tracking server whose room for what it hands on is small, or whose object store is slow."""

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlwf.errors import MlwfError
from mlwf.export.api import TrackingApi
from mlwf.export.server_source import FETCH_SECONDS, ServerSource
from mlwf.transfer import download as downloading
from mlwf.transfer import http
from mlwf.transfer.download import Download
from mlwf.transfer.http import ATTEMPTS, Request, opened
from mlwf.transfer.session import plain_session
from mlwf.transfer.source import RemoteFile

ROOT = Path(__file__).resolve().parent.parent.parent
SHARDS = [RemoteFile(f"shard-{number}", 6) for number in range(4)]
WHOLE = b"shards"
NO_ROOM = "The server has no room for this transfer now: try again later, or send and fetch less at once."
Answer = tuple[int, dict[str, str], bytes]


class Stub:
    """Answers as it is told, on a thread for each request; `asked`: how many times for which file."""

    def __init__(self, answer: Callable[["Stub"], Answer]) -> None:
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                with stub.lock:
                    stub.asked[self.path.rpartition("/")[2]] += 1
                status, headers, body = answer(stub)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def source(self) -> ServerSource:
        base = f"http://127.0.0.1:{self.server.server_port}/mlflow"
        return ServerSource(TrackingApi(base, plain_session(base, {})), "0/run/artifacts/model")

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Stub], Answer]], Stub]]:
    monkeypatch.setattr(downloading, "pause_before", lambda _attempt, _error: 0.0)
    made: list[Stub] = []

    def make(answer: Callable[[Stub], Answer]) -> Stub:
        made.append(Stub(answer))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def refused(status: int, message: str, **headers: str) -> Answer:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps({"message": message}).encode()


def fetch(stub: Stub, folder: Path, files: list[RemoteFile] = SHARDS) -> None:
    (into := folder / "model").mkdir()
    with Download(stub.source(), files, into) as download:
        download.finish()
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {file.path: WHOLE for file in files}


class Room:
    """For so many files, each held until all who do not fit beside them have been told so."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.waiting = len(SHARDS) - places
        self.told = threading.Event()

    def answer(self, stub: Stub) -> Answer:
        with stub.lock:
            if not self.places:
                self.waiting -= 1
                if not self.waiting:
                    self.told.set()
                return refused(507, NO_ROOM, Retry_After="30")
            self.places -= 1
        assert self.told.wait(20)
        with stub.lock:
            self.places += 1
        return 200, {}, WHOLE


@pytest.mark.parametrize("places", [1, 2])
def test_what_does_not_fit_beside_the_others_comes_after_them(
    tmp_path: Path, stub: Callable[[Callable[[Stub], Answer]], Stub], places: int
) -> None:
    """Three files of 5 GB were refused every time, though one at a time would have fitted."""
    server = stub(Room(places).answer)
    fetch(server, tmp_path)
    assert server.asked.total() == len(SHARDS) + len(SHARDS) - places, "nobody asks over and over while another file is on its way"


def test_where_there_is_no_room_to_the_end_the_servers_own_word_is_told(
    tmp_path: Path, stub: Callable[[Callable[[Stub], Answer]], Stub]
) -> None:
    server = stub(lambda _stub: refused(507, NO_ROOM, Retry_After="30"))
    with pytest.raises(MlwfError) as caught:
        fetch(server, tmp_path)
    assert caught.value.why == f"HTTP 507: {NO_ROOM}"
    assert server.asked.total() == len(SHARDS) - 1 + ATTEMPTS


@pytest.mark.parametrize(("status", "message"), [(507, "An artifact of more than 5 bytes cannot pass."), (424, "The key is refused.")])
def test_what_waiting_does_not_cure_is_told_at_once_with_the_servers_own_word(
    tmp_path: Path, stub: Callable[[Callable[[Stub], Answer]], Stub], status: int, message: str
) -> None:
    server = stub(lambda _stub: refused(status, message))
    with pytest.raises(MlwfError) as caught:
        fetch(server, tmp_path, SHARDS[:1])
    assert caught.value.why == f"HTTP {status}: {message}"
    assert server.asked.total() == 1


class Slow:
    """Answers when it is asked again for the same file, or else after a second: its store takes that long."""

    def __init__(self) -> None:
        self.again = threading.Event()

    def answer(self, stub: Stub) -> Answer:
        if stub.asked.total() > 1:
            self.again.set()
        self.again.wait(1.0)
        return 200, {}, WHOLE


def test_a_server_that_fetches_a_large_file_first_is_asked_once(
    tmp_path: Path, stub: Callable[[Callable[[Stub], Answer]], Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each try that was given up the server went on with its own fetch, and kept the room for it."""
    monkeypatch.setattr(http, "READ_SECONDS", 0.1)
    server = stub(Slow().answer)
    fetch(server, tmp_path, SHARDS[:1])
    assert server.asked.total() == 1


def test_a_servers_time_for_its_fetch_is_more_than_its_nginx_has() -> None:
    (nginx,) = re.findall(r"`proxy_read_timeout` (\d+)s", (ROOT / "docs" / "reference" / "box.md").read_text())
    assert int(nginx) < FETCH_SECONDS


def test_a_connection_over_which_nothing_comes_is_looked_at(stub: Callable[[Callable[[Stub], Answer]], Stub]) -> None:
    """A server that is switched off says nothing, either."""
    source = stub(lambda _stub: (200, {}, WHOLE)).source()
    with opened(source._session, Request(f"{source._api.base}/x", {})) as response:
        there = response.raw.connection.sock
        assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
