"""How the service is found and the caller proved: settings, and one proof for each attempt."""

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlwf.client import Client, ServiceUnavailable
from mlwf.errors import MlwfError, WrongUseError
from mlwf.transfer.session import tracking_session
from mlwf.wire.connection import connection
from mlwf.wire.munge import MungeAuth
from mlwf.wire.munge_payload import head_of, payload
from mlwf.wire.token_auth import TokenAuth
from requests.auth import AuthBase

ADDRESS = "https://mlflow01.example.org:8443"


class Counting(AuthBase):
    """Another proof for each attempt."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        self.made += 1
        request.headers["Authorization"] = f"MUNGE {self.made}"
        return request


class Breaking:
    """A service on a Unix socket that closes the first `breaks` requests without an answer."""

    def __init__(self, path: Path, breaks: int) -> None:
        self.breaks = breaks
        self.seen: list[str] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        body = json.dumps({"status": "ok", "version": "0", "reconciler": {"seen_at": None, "ok": True}}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with connection:
                request = connection.recv(65536).decode()
                self.seen += [line.partition(": ")[2] for line in request.split("\r\n") if line.startswith("Authorization")]
                if self.breaks:
                    self.breaks -= 1
                else:
                    connection.sendall(head + body)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket in it."""
    made = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".config" / "mlwf").mkdir(parents=True)
    return tmp_path


def test_a_broken_connection_is_tried_once_more_and_signed_anew(short: Path) -> None:
    service, auth = Breaking(short / "s", breaks=1), Counting()
    with Client(f"unix://{short}/s", auth=auth) as client:
        assert client.health().status == "ok"
    service.close()
    assert service.seen == ["MUNGE 1", "MUNGE 2"]


def test_it_is_not_tried_for_ever_nor_where_something_may_have_been_done(short: Path) -> None:
    service, auth = Breaking(short / "s", breaks=9), Counting()
    with Client(f"unix://{short}/s", auth=auth) as client:
        with pytest.raises(ServiceUnavailable):
            client.health()
        with pytest.raises(ServiceUnavailable):
            client.start("g", "e")
    service.close()
    assert service.seen == ["MUNGE 1", "MUNGE 2", "MUNGE 3"]


def test_variables_go_before_the_users_file_and_that_before_the_sites(folder: Path) -> None:
    site, own = folder / "site.yml", folder / ".config" / "mlwf" / "settings.yml"
    site.write_text(f"service: {ADDRESS}/\nmunge_uid: 990\n")
    home = {"HOME": str(folder)}
    found = connection(home, site_file=site)
    assert found.address == ADDRESS
    assert isinstance(found.auth, MungeAuth)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text("aihub_x_y\n")
    own.write_text("token_file: ~/token\n".replace("~", str(folder)))
    assert isinstance(connection(home, site_file=site).auth, TokenAuth)
    assert connection({**home, "MLWF_SERVICE": "unix:///s"}, site_file=site).auth is None
    assert connection({**home, "MLWF_SETTINGS": str(site)}, site_file=folder / "none").address == ADDRESS
    assert connection(home, site_file=folder / "none").address == "unix:///run/aihub/service.sock"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servic: x", "servic is not a setting. Use these: service, ca_file"),
        ("service: [x]", "service is not text"),
        ("- x", "it has no 'name: value' lines"),
        ("service: {", "cannot be used"),
        (f"service: {ADDRESS}\ntoken_file: token", "token_file is the relative path token"),
        (f"service: {ADDRESS}", "Nothing proves to"),
    ],
)
def test_settings_that_cannot_be_used(folder: Path, text: str, said: str) -> None:
    file = folder / "settings.yml"
    file.write_text(text)
    with pytest.raises(WrongUseError) as failed:
        connection({"MLWF_SETTINGS": str(file)}, site_file=folder / "none")
    assert said in str(failed.value)


def test_a_settings_file_that_is_named_must_be_there(folder: Path) -> None:
    with pytest.raises(WrongUseError, match="MLWF_SETTINGS"):
        connection({"MLWF_SETTINGS": str(folder / "none")}, site_file=folder / "none")


@pytest.mark.parametrize(("text", "mode"), [("", 0o600), ("two words", 0o600), ("aihub_x_y", 0o644), (None, 0o600)])
def test_a_tokens_file_that_cannot_be_used(folder: Path, text: str | None, mode: int) -> None:
    file = folder / "token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with pytest.raises(MlwfError) as failed:
        connection({"MLWF_SERVICE": ADDRESS, "MLWF_TOKEN_FILE": str(file)}, site_file=folder / "none")
    assert failed.value.cure
    assert "aihub_x_y" not in repr(failed.value)


ODD_TOKENS = ["aihub_x_y\r\naihub_z", "aihub_x y", "aihub_x\x00y", "aihub_é"]


@pytest.mark.parametrize("text", ODD_TOKENS)
def test_a_tokens_variable_that_no_header_can_carry(folder: Path, text: str) -> None:
    """It is wrong use, and shown nowhere; it was a fault of the tool, whose traceback held the token."""
    with pytest.raises(WrongUseError, match="MLWF_TOKEN cannot be used: it does not hold exactly one token") as failed:
        connection({"MLWF_SERVICE": ADDRESS, "MLWF_TOKEN": text}, site_file=folder / "none")
    with pytest.raises(WrongUseError, match="MLFLOW_TRACKING_TOKEN cannot be used: it does not hold exactly one token") as failed_too:
        tracking_session("http://127.0.0.1:9", {"HOME": str(folder), "MLFLOW_TRACKING_TOKEN": text})
    assert "aihub_" not in f"{failed.value!r} {failed_too.value!r}"


def test_a_tokens_variable_from_a_file_of_another_system(folder: Path) -> None:
    environ = {"HOME": str(folder), "MLFLOW_TRACKING_TOKEN": "aihub_x_y\r\n", "MLWF_TOKEN": "aihub_x_y\r", "MLWF_SERVICE": ADDRESS}
    for auth in (tracking_session("http://127.0.0.1:9", environ).auth, connection(environ, site_file=folder / "none").auth):
        assert callable(auth)
        assert auth(requests.Request("GET", ADDRESS).prepare()).headers["Authorization"] == "Bearer aihub_x_y"


def test_what_a_credential_is_bound_to() -> None:
    request = {"method": "GET", "service": ADDRESS, "target": "/api/v1/me"}
    plain = payload(**request, body=b"")
    others = [{"method": "PUT"}, {"service": "https://x"}, {"target": "/api/v1/me?x"}]
    assert len({plain, *(payload(**{**request, **other}, body=b"") for other in others), payload(**request, body=b"x")}) == 5
    assert payload(**{**request, "service": ADDRESS + "/", "method": "get"}, body=b"") == plain
    assert head_of(plain) == head_of(payload(**request, body=b"x"))
    assert len(plain) < 160
