"""The digest behind a tag, with a registry that has its users sign in."""

import base64
import contextlib
import hashlib
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import bcrypt
import pytest
import requests
from mlwf.errors import MlwfError
from mlwf.image.base.docker_reference import DockerReference
from mlwf.image.base.registry import registry_digest, registry_login, registry_manifest

from demo.ports import free_ports, is_free
from tests.image.index import Index, Serving
from tests.support.box import until
from tests.support.tls import Authority

DIGEST = "sha256:" + "ab" * 32


BASIC = "Basic " + base64.b64encode("alice:right ☺".encode()).decode()
BEARER = 'Bearer realm="http://{address}/token",service="s",scope="x"'


class Registry(BaseHTTPRequestHandler):
    """Speaks the token dance of registries, for one user. `challenges`: the lines of its 401."""

    seen: ClassVar[list[tuple[str, str]]] = []
    digest = DIGEST
    token, status = b"", 200
    challenges: ClassVar[tuple[str, ...]] = (BEARER,)

    def do_HEAD(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        if self.path.startswith("/v2/moved/"):
            self._answer(307, ("Location", "//["))
        elif self.path.startswith("/v2/open/"):
            self._answer(self.status)
        elif self.headers.get("Authorization") == ("Bearer right" if "token" in "".join(self.challenges) else BASIC):
            self._answer(200 if "/manifests/1" in self.path else 404)
        else:
            address = f"127.0.0.1:{self.server.server_address[1]}"
            self._answer(401, *(("WWW-Authenticate", each.format(address=address)) for each in self.challenges))

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        known = self.headers.get("Authorization") in {BASIC, "Basic " + base64.b64encode(b"alice:right").decode()}
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
    Registry.seen, Registry.digest, Registry.token, Registry.status, Registry.challenges = [], DIGEST, b"", 200, (BEARER,)
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


@pytest.mark.parametrize(
    ("variable", "value", "file"),
    [
        ("DOCKER_CONFIG", "docker", "docker/config.json"),
        ("XDG_RUNTIME_DIR", "run", "run/containers/auth.json"),
        ("REGISTRY_AUTH_FILE", "logins", "logins"),
    ],
)
def test_a_login_is_found_where_its_program_keeps_it(address: str, tmp_path: Path, variable: str, value: str, file: str) -> None:
    """`docker login` and `podman login` go by these variables."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(b"alice:right").decode()
    (tmp_path / file).write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    reference = DockerReference.parse(f"docker://{address}/private/python:1")
    environ = {"HOME": str(tmp_path / "home")}
    assert registry_digest(reference, {**environ, variable: str(tmp_path / value)}, http=True) == DIGEST
    with pytest.raises(MlwfError, match="401"):
        registry_digest(reference, environ, http=True)


def test_a_login_without_a_password_is_none(tmp_path: Path) -> None:
    """As clouds' own programs write it: a token stands beside the name, which is sent to nobody with an empty password."""
    (tmp_path / ".docker").mkdir()
    entry = {"auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(), "identitytoken": "eyJ"}
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {"site.azurecr.io": entry}}))
    assert registry_login("site.azurecr.io", {"HOME": str(tmp_path)}) is None


@pytest.mark.heavy
def test_a_real_registry_and_a_real_login(tmp_path: Path) -> None:
    """Debian's docker-registry behind a password, and `podman login`."""
    with registry_with_password(tmp_path) as address:
        push(f"http://{address}", "site/empty", "1", ("alice", "right"))
        reference = DockerReference.parse(f"docker://{address}/site/empty:1")
        environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.environ["PATH"]}
        with pytest.raises(MlwfError, match=r"401.*docker login"):
            registry_digest(reference, environ, http=True)
        login = ["podman", "login", "--authfile", str(tmp_path / "run/containers/auth.json"), "--tls-verify=false", "-u", "alice"]
        subprocess.run([*login, "--password-stdin", address], input="right", text=True, check=True, capture_output=True, env=environ)
        digest = registry_digest(reference, environ, http=True)
        assert digest == f"sha256:{hashlib.sha256(registry_manifest(reference, '1', environ, http=True)).hexdigest()}"
        with pytest.raises(MlwfError, match=r"404.*Check the name"):
            registry_digest(DockerReference.parse(f"docker://{address}/site/none:1"), environ, http=True)


@contextlib.contextmanager
def registry_with_password(folder: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    (folder / "users").write_text(f"alice:{bcrypt.hashpw(b'right', bcrypt.gensalt(5)).decode().replace('$2b$', '$2y$')}\n")
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "Registry Realm", "path": str(folder / "users")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or not is_free(port), what="the registry")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def push(url: str, name: str, tag: str, login: tuple[str, str]) -> None:
    """An image of nothing."""
    blobs = f"{url}/v2/{name}/blobs"
    digest = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    place = requests.post(f"{blobs}/uploads/", auth=login, timeout=30).headers["Location"]
    assert requests.put(place, params={"digest": digest}, data=b"{}", auth=login, timeout=30).status_code == 201
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": digest}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []})
    sent = requests.put(f"{url}/v2/{name}/manifests/{tag}", data=manifest, headers={"Content-Type": kind}, auth=login, timeout=30)
    assert sent.status_code == 201, sent.text


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


@pytest.mark.parametrize(
    "challenges",
    [
        ('Basic realm="Registry Realm"',),
        ('BASIC realm="Sonatype Nexus Repository Manager"',),
        ("Negotiate", 'Basic realm="the site"'),
        ('Negotiate, Basic realm="a, Bearer realm=b", charset="UTF-8"',),
        ('Basic realm="Registry Realm"', BEARER),
        (BEARER, 'Basic realm="Registry Realm"'),
        ("Negotiate oYG2MIGzoAMKAQChCwYJKoZIgvcS==", BEARER.replace('service="s"', "service=s").replace(",", ", ")),
        ('Basic realm="Registry Realm", bearer realm="http://{address}/token"',),
    ],
)
def test_every_way_in_that_a_registry_offers_is_looked_at(address: str, challenges: tuple[str, ...], tmp_path: Path) -> None:
    """Products offer one way or two, on one line or two; a web server with single sign-on before them puts its own first."""
    Registry.challenges = challenges
    environ = {"HOME": str(tmp_path), "APPTAINER_DOCKER_USERNAME": "alice", "APPTAINER_DOCKER_PASSWORD": "right ☺"}
    reference = DockerReference.parse(f"docker://{address}/private/python:1")
    assert registry_digest(reference, environ, http=True) == DIGEST
    with pytest.raises(MlwfError, match=r"401.*docker login"):
        registry_digest(reference, {"HOME": str(tmp_path)}, http=True)


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


def test_a_registry_that_sends_on_to_no_address(address: str) -> None:
    with pytest.raises(MlwfError, match="the registry does not answer"):
        registry_digest(DockerReference.parse(f"docker://{address}/moved/python:1"), {}, http=True)


def test_a_registry_that_does_not_answer() -> None:
    with pytest.raises(MlwfError, match="Connection refused"):
        registry_digest(DockerReference.parse("docker://127.0.0.1:9/a"), {}, http=True)


def test_a_registry_that_speaks_plain_http(address: str) -> None:
    with pytest.raises(MlwfError, match=r"does not answer \(.*SSL.*\)\. .*--no-https"):
        registry_digest(DockerReference.parse(f"docker://{address}/open/python:1"), {})


def test_a_registry_with_a_certificate_of_the_sites_own(tmp_path: Path) -> None:
    authority, index = Authority(tmp_path / "tls"), Index()
    authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "fullchain.pem", authority.folder / "privkey.pem")
    serving = Serving(index, tls=context)
    reference = DockerReference.parse(f"docker://127.0.0.1:{index.port}/open/python:1")
    try:
        with pytest.raises(MlwfError, match=r"CERTIFICATE_VERIFY_FAILED.*REQUESTS_CA_BUNDLE.*SSL_CERT_FILE"):
            registry_digest(reference, {})
        with pytest.raises(MlwfError, match="answers 404"):
            registry_digest(reference, {"REQUESTS_CA_BUNDLE": str(authority.ca_file)})
    finally:
        serving.stop()


@pytest.mark.parametrize("told", ['{{"credsStore": "secretservice"}}', '{{"auths": {{"{0}": {{}}}}, "credHelpers": {{"{0}": "site"}}}}'])
def test_a_login_that_a_credential_helper_keeps_is_not_asked_for_again(address: str, tmp_path: Path, told: str) -> None:
    file = tmp_path / ".docker/config.json"
    file.parent.mkdir()
    reference = DockerReference.parse(f"docker://{address}/private/python:1")
    for text, helper in (('{"credHelpers": {"other.example": "site"}}', False), (told.format(address), True)):
        file.write_text(text)
        with pytest.raises(MlwfError, match=r"answers 401\. .*APPTAINER_DOCKER_PASSWORD") as caught:
            registry_digest(reference, {"HOME": str(tmp_path)}, http=True)
        assert ("docker login" not in str(caught.value), f"credential helper that {file} names" in str(caught.value)) == (helper, helper)
