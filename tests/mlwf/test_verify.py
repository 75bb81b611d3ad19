"""`mlwf verify` of a web address: a web server that is busy or breaks off, addresses with keys, and what is counted."""

import functools
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlwf.errors import MlwfError, WrongUseError
from mlwf.publish.package import read_tarball
from mlwf.publish.verify import Verified, verify

from tests.image.web import Web
from tests.mlwf.faults import Fault, FaultyProxy


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


class Twice(Quiet):
    """Says the length once more, as a proxy before a web server that says it, too."""

    def send_header(self, keyword: str, value: str) -> None:
        for _once in range(2 if keyword == "Content-Length" else 1):
            super().send_header(keyword, value)


class Silent:
    def begins(self, _what: str, _total: int) -> None:
        pass

    def moved(self, _count: int) -> None:
        pass


@pytest.fixture(params=[Quiet])
def published(package: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A package on an ordinary web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(request.param, directory=str(package)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def looked_at(url: str) -> Verified:
    return verify(url, {}, Silent(), wait=lambda _seconds: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("published", [Twice], indirect=True)
def test_a_length_that_is_said_twice(published: str) -> None:
    assert looked_at(published).content.files == 2


def test_a_busy_web_server_is_asked_again(published: str) -> None:
    proxy = FaultyProxy(published, lambda _path, asked: Fault(status=503) if asked < 2 else None)
    try:
        assert looked_at(proxy.url).content.files == 2
    finally:
        proxy.stop()
    assert proxy.seen == ["/info.yaml"] * 3 + ["/model.tar.gz"] * 3


@pytest.mark.parametrize(("fault", "said"), [(Fault(status=503), "HTTP 503"), (Fault(cut=50), "model.tar.gz could not be read")])
def test_what_was_not_read_is_not_told_as_absent(fault: Fault, said: str, published: str) -> None:
    proxy = FaultyProxy(published, lambda path, _asked: fault if path == "/model.tar.gz" else None)
    try:
        with pytest.raises(MlwfError, match=said) as failed:
            looked_at(proxy.url)
    finally:
        proxy.stop()
    assert "There is no" not in str(failed.value)
    assert failed.value.cure == "Try again in a moment."


def test_what_is_absent_is_told_so(published: str) -> None:
    with pytest.raises(MlwfError, match=r"There is no readable info\.yaml at .*HTTP 404"):
        looked_at(f"{published}/elsewhere/")


@pytest.mark.parametrize(
    ("location", "cure"),
    [
        (
            "https://models.example/m/info.yaml?X-Amz-Signature=deadbeef",
            "Give the address to which it leads: https://models.example/m/info.yaml",
        ),
        ("/sso/login", "Give the address to which it leads: http://127.0.0.1:"),
        ("//[", "Check the address, and that it was published."),
    ],
)
def test_an_address_that_leads_elsewhere_is_not_told_as_absent(location: str, cure: str) -> None:
    """Web servers send http on to https, and who is not signed in to a login page."""
    server = Web({}, redirects={"/m/info.yaml": location}).start()
    try:
        with pytest.raises(MlwfError, match=r"/m/info\.yaml leads elsewhere, as a login page does") as failed:
            looked_at(f"{server.url}/m/")
    finally:
        server.stop()
    assert failed.value.cure.startswith(cure)
    assert "deadbeef" not in str(failed.value)


def test_an_answer_that_leads_nowhere_gives_no_address_to_ask_again() -> None:
    """As Amazon's, for a bucket of another region."""

    class Nowhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(301)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nowhere)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with pytest.raises(MlwfError, match=r"HTTP 301") as failed:
            looked_at(f"http://127.0.0.1:{server.server_port}/m/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "leads" not in str(failed.value)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid"])
def test_an_address_where_nobody_is_is_to_be_checked(host: str) -> None:
    with pytest.raises(MlwfError, match=r"info\.yaml could not be read") as failed:
        looked_at(f"http://{host}/m/")
    assert failed.value.cure == "Check the address, and that it was published."


def test_an_address_with_a_key_is_refused_and_the_key_is_not_shown() -> None:
    with pytest.raises(WrongUseError, match="has a query or a fragment") as failed:
        looked_at("http://127.0.0.1:9/b/model.tar.gz?X-Amz-Credential=AK&X-Amz-Signature=deadbeef")
    assert "deadbeef" not in repr(failed.value)


def test_folders_are_no_files() -> None:
    """As the form counts them."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, kind in (("MLmodel", tarfile.REGTYPE), ("data", tarfile.DIRTYPE), ("data/model.pkl", tarfile.REGTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            archive.addfile(entry)
    content.seek(0)
    assert read_tarball(content).files == 2
