"""A trial of a new MLflow, which serves what members wrote: no answer holds the service up, fills its memory or sends it elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlwf.secret import Secret

from backend.adapters import trial
from backend.errors import ServiceError

VERSION = "3.17.2"
MIB = 1024**2
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def box(answers: dict[str, Answer]) -> Iterator[tuple[str, int]]:
    """What answers each path in that way, and any other with the version."""

    class Box(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.get(self.path.partition("?")[0], says(VERSION))(self)

        do_GET = do_POST = answer  # noqa: N815 (http.server's own names)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Box)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def says(text: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())

    return answer


def long(sent: list[int]) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            for _ in range(64):
                request.wfile.write(b"x" * MIB)
                sent.append(MIB)
        except OSError:  # nobody listens any more
            return

    return answer


def slow(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while not threading.Event().wait(0.05):
            request.wfile.write(b"x")
    except OSError:
        return


def elsewhere(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", "/elsewhere")
    request.send_header("Content-Length", "0")
    request.end_headers()


def look(address: tuple[str, int]) -> None:
    trial.HttpTrial().look(address=address, password=Secret("p"), version=VERSION)


@pytest.mark.parametrize(
    "path", ["/mlflow/", "/mlflow/api/2.0/mlflow/experiments/search", "/mlflow/api/2.0/mlflow/registered-models/search"]
)
def test_of_a_long_answer_only_the_beginning_is_read(path: str) -> None:
    sent: list[int] = []
    with box({path: long(sent)}) as address:
        look(address)
    assert sum(sent) < 32 * MIB, "and what the sockets hold"


def test_an_answer_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    with box({"/mlflow/": slow}) as address, pytest.raises(ServiceError, match="version_unfit"):
        look(address)


def test_it_goes_nowhere_else() -> None:
    asked: list[str] = []

    def there(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        says("")(request)

    with box({"/mlflow/": elsewhere, "/elsewhere": there}) as address, pytest.raises(ServiceError, match="is answered with 302"):
        look(address)
    assert not asked


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"experiment_id": "1", "run": null}', "[" * 100_000])
def test_what_is_no_answer_of_mlflows_makes_the_version_unfit(text: str) -> None:
    answers = {f"/mlflow/api/2.0/mlflow/{name}": says(text) for name in ("experiments/create", "runs/create")}
    with box(answers) as address, pytest.raises(ServiceError, match="version_unfit"):
        trial.HttpTrial().try_out(address=address, password=Secret("p"), version=VERSION, folder="f")
