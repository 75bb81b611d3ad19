"""The console over a fake service, for WSGI tests and for a browser."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from ood_app.app import create_app
from ood_app.settings import Settings, load
from tests.console.fake_service import FakeService

MOUNT = "/pun/sys/mlflow-console"
VISIT = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin"}
"""What a browser says of a request whose answer it will show as a page."""


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A fake service in a short folder of its own, for the socket's sake."""
    folder = Path(tempfile.mkdtemp(prefix="con", dir="/tmp"))
    fake = FakeService(socket=folder / "s.sock", area=folder / "groups")
    for group in fake.groups:
        (fake.area / group).mkdir(parents=True)
    fake.start()
    yield fake
    fake.stop()
    shutil.rmtree(folder)


@pytest.fixture
def settings(service: FakeService) -> Settings:
    return load({"MLWF_SERVICE": f"unix://{service.socket}", "SECRET_KEY_BASE": "k" * 64})


@pytest.fixture
def app(settings: Settings) -> Flask:
    return create_app(settings)


@dataclass
class Caller:
    """A WSGI client that behaves as the page does: own origin, token from the page."""

    client: FlaskClient
    token: str

    @classmethod
    def of(cls, app: Flask) -> Caller:
        client = app.test_client()
        page = client.get("/").get_data(as_text=True)
        return cls(client, page.split('name="csrf-token" content="')[1].split('"')[0])

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, **options)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin", "X-CSRFToken": self.token} | headers
        return self.client.open(f"/api{path}", method=method, json=body if body is not None else {}, headers=sent)


@pytest.fixture
def caller(app: Flask) -> Caller:
    return Caller.of(app)


class _Quiet(WSGIRequestHandler):
    def log(self, *_args: Any) -> None:
        """Test output stays free of access lines."""


def one_at_a_time(app: Any) -> Any:
    """As Passenger does: the next request waits until this one was answered."""
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            answer = app(environ, start_response)
            try:
                return list(answer)
            finally:
                getattr(answer, "close", lambda: None)()

    return serve


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """The console on a free port, mounted as Open OnDemand mounts it, one request at a time."""

    def nothing(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return []

    server = make_server("127.0.0.1", 0, one_at_a_time(DispatcherMiddleware(nothing, {MOUNT: app})), threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{MOUNT}/"
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Opener:
    """Opens the console in a fresh browser context; what the browser complained of is in `complaints`."""

    browser: Browser
    address: str
    complaints: list[str]
    contexts: list[Any]

    def __call__(self, *, width: int = 1280, height: int = 900, locale: str = "en-US", **options: Any) -> Page:
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, locale=locale, timezone_id="Asia/Tokyo", reduced_motion="reduce", **options
        )
        context.set_default_timeout(30_000)
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: print(f"{request.url} failed: {request.failure}"))  # pytest shows it when the test failed
        page.goto(self.address)
        return page


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Opener]:
    opener = Opener(browser, address, [], [])
    yield opener
    print(f"the browser complained: {opener.complaints}")
    for context in opener.contexts:
        for page in context.pages:
            page.unroute_all(behavior="wait")  # a handler under way would fail in the next test
        context.close()


def deleted_twice(service: FakeService) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two deleted servers of one name: the one that was deleted first, and the latest."""
    older = service.add("gaa50000", "wine", "deleted")
    service.servers[older["id"]] = service.servers.pop("gaa50000/wine")
    return older, service.add("gaa50000", "wine", "deleted")
