"""What a server or store answers that is a little wrong, or has no end: it is taken where it can be, and else said in one sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlwf.export import api
from mlwf.export.api import RegistryError, TrackingApi
from mlwf.export.server_source import ServerSource
from mlwf.transfer import store
from mlwf.transfer.session import plain_session
from mlwf.transfer.source import RemoteFile
from mlwf.transfer.store import StoreError, StoreSource

LIST = "<ListBucketResult><Contents><Key>m/MLmodel</Key><Size>{size}</Size></Contents>{more}</ListBucketResult>"


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Has a server answer all that it is asked with that body and those headers; its address."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def begin(body: bytes, *headers: tuple[str, str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield begin
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def store_at(address: str, monkeypatch: pytest.MonkeyPatch) -> StoreSource:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    return StoreSource(endpoint_url=address, region="x", bucket="b", prefix="m", environ={})


def test_a_length_that_a_proxy_says_twice_is_one(answering: Callable[..., str]) -> None:
    base = answering(b"MLmodel", ("Content-Length", "7"), ("Content-Length", "7"))
    source = ServerSource(TrackingApi(base, plain_session(base, {})), "0/run/artifacts/model")
    with source.read(RemoteFile("MLmodel", 7), 0, None) as chunks:
        assert b"".join(chunks) == b"MLmodel"


@pytest.mark.parametrize("size", ["much", "-1", "9" * 5000])
def test_a_size_that_is_none_is_the_stores_fault(answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    found = store_at(answering(LIST.format(size=size, more="").encode()), monkeypatch)
    with pytest.raises(StoreError, match="it does not say how large the object is"):
        found.files()


def test_a_list_without_an_end_is_not_read_whole(answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_LIST", 1 << 20)
    found = store_at(answering(LIST.format(size=1, more=" " * (2 << 20)).encode()), monkeypatch)
    with pytest.raises(StoreError, match="the answer is larger than 1 MB"):
        found.files()


def test_an_answer_of_a_registry_without_an_end_is_not_read_whole(answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER", 1 << 20)
    base = answering(b"{" + b" " * (2 << 20) + b"}")
    with pytest.raises(RegistryError, match="the answer is larger than 1 MB"):
        TrackingApi(base, plain_session(base, {})).get("registered-models/get")
