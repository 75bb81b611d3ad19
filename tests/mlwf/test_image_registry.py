"""The digest behind a tag, with a registry that has its users sign in."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from mlwf.errors import MlwfError
from mlwf.image.base.docker_reference import DockerReference
from mlwf.image.base.registry import registry_digest

DIGEST = "sha256:" + "ab" * 32


class Registry(BaseHTTPRequestHandler):
    """Speaks the token dance of registries, for one user."""

    seen: ClassVar[list[tuple[str, str]]] = []
    digest = DIGEST
    token, status = b"", 200

    def do_HEAD(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        if self.path.startswith("/v2/open/"):
            self._answer(self.status)
        elif self.headers.get("Authorization") == "Bearer right":
            self._answer(200 if "/manifests/1" in self.path else 404)
        else:
            port = self.server.server_address[1]
            self._answer(401, ("WWW-Authenticate", f'Bearer realm="http://127.0.0.1:{port}/token",service="s",scope="x"'))

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        known = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"alice:right").decode()
        body = self.token or json.dumps({"token": "right" if known else "wrong"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Docker-Content-Digest", self.digest), ("Content-Length", "0"), *headers):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    Registry.seen, Registry.digest, Registry.token, Registry.status = [], DIGEST, b"", 200
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_digest_behind_a_tag(address: str, tmp_path: Path) -> None:
    def ask(name: str, **environ: str) -> str:
        return registry_digest(DockerReference.parse(f"docker://{address}/{name}"), {"HOME": str(tmp_path), **environ}, http=True)

    assert ask("open/python:3") == DIGEST
    with pytest.raises(MlwfError, match=r"401.*docker login"):
        ask("private/python:1")
    assert ask("private/python:1", APPTAINER_DOCKER_USERNAME="alice", APPTAINER_DOCKER_PASSWORD="right") == DIGEST
    (tmp_path / ".docker").mkdir()
    auth = base64.b64encode(b"alice:right").decode()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    assert ask("private/python:1") == DIGEST
    with pytest.raises(MlwfError, match="404"):
        ask("private/python:2")
    assert not any("right" in path for path, _auth in Registry.seen), "no secret in an address"
    asked = len(Registry.seen)
    assert ask(f"private/python@{DIGEST}") == DIGEST
    assert len(Registry.seen) == asked
    Registry.digest = "sha256:../../x"
    assert re.fullmatch("sha256:[0-9a-f]{64}", ask("open/python:3")), "then the manifest is hashed"


def test_what_the_user_keeps_for_other_programs_is_not_sent(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home/.netrc").write_text("machine 127.0.0.1 login alice password of-the-netrc\n")
    (tmp_path / "home/.netrc").chmod(0o600)
    reference = DockerReference.parse(f"docker://{address}/private/python:1")
    environ = {"HOME": str(tmp_path / "home"), "APPTAINER_DOCKER_USERNAME": "alice", "APPTAINER_DOCKER_PASSWORD": "right"}
    assert registry_digest(reference, environ, http=True) == DIGEST, "it went before the registry's token"
    with pytest.raises(MlwfError, match="401"):
        registry_digest(reference, {}, http=True)
    secret = base64.b64encode(b"alice:of-the-netrc").decode()
    assert len(Registry.seen) == 6
    assert not any(secret in sent for _path, sent in Registry.seen)


@pytest.mark.parametrize("token", [b"[]", b'"right"', b"<html>", b"{}", b'{"token": 7}', b'{"token": "a\\r\\nHost: b"}', b"\xff"])
def test_an_answer_without_a_token_is_said(address: str, token: bytes) -> None:
    Registry.token = token
    with pytest.raises(MlwfError, match=f"{address}, where the registry signs users in, sends no token"):
        registry_digest(DockerReference.parse(f"docker://{address}/private/python:1"), {}, http=True)


@pytest.mark.parametrize(
    ("status", "cure"), [(429, "docker login"), (503, "Try again"), (500, "Try again"), (404, "Check the name"), (403, "docker login")]
)
def test_what_to_do_about_an_answer(address: str, status: int, cure: str) -> None:
    Registry.status = status
    with pytest.raises(MlwfError, match=rf"answers {status}\. .*{cure}") as caught:
        registry_digest(DockerReference.parse(f"docker://{address}/open/python:1"), {}, http=True)
    assert ("Check the name and the tag" in str(caught.value)) is (status == 404)


def test_a_registry_that_does_not_answer() -> None:
    with pytest.raises(MlwfError, match="Connection refused"):
        registry_digest(DockerReference.parse("docker://127.0.0.1:9/a"), {}, http=True)
