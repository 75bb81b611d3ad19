"""mlwf doctor: each thing that a node can lack is broken for real, and found."""

import contextlib
import http.server
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlwf.doctor import findings
from mlwf.doctor.findings import Check, Failed, Noted, look
from mlwf.doctor.server_checks import Server

from demo.ports import free_ports
from tests.mlwf.image_parts import fake_tool
from tests.mlwf.tracking import PlainServer, Tracking
from tests.support.tls import Authority

Examine = Callable[..., dict[str, Any]]


@pytest.fixture
def doctor(mlwf: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Runs it and answers its findings by check, and `status`."""

    def run(*argv: str, **env: str) -> dict[str, Any]:
        status = mlwf("doctor", *argv, "--json", "--seconds", "30", env=env)
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] == (status == 0)
        return {each["check"]: each for each in document["checks"]} | {"status": status}

    for name in ("HTTP_PROXY", "http_proxy", "no_proxy", "NO_PROXY", "MLFLOW_TRACKING_URI", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return run


def states(found: dict[str, Any], *names: str) -> list[str]:
    return [found[name]["state"] for name in names]


@pytest.mark.box
def test_all_is_well(tracking: Tracking, doctor: Examine) -> None:
    owner = tracking.store.owner
    keys = {"AWS_ACCESS_KEY_ID": owner.access_key, "AWS_SECRET_ACCESS_KEY": owner.secret_key}
    before = objects(tracking)
    found = doctor(tracking.url, **tracking.login, **keys)
    names = ("name", "proxy", "connection", "address", "login", "clock", "bucket", "bucket-write", "bucket-parts")
    assert states(found, *names) == ["ok"] * len(names), found
    assert found["login"]["text"].endswith("basic:alice")
    assert "3.17.2" in found["version"]["text"]
    assert objects(tracking) == before
    settings = tracking.box.settings
    assert not tracking.store.client().list_multipart_uploads(Bucket=settings["bucket"]).get("Uploads")


@pytest.mark.box
def test_a_bucket_whose_first_object_is_empty(tracking: Tracking, doctor: Examine) -> None:
    owner, settings = tracking.store.owner, tracking.box.settings
    where = {"Bucket": settings["bucket"], "Key": f"{settings['prefix']}/ __init__.py"}
    tracking.store.client().put_object(**where, Body=b"")
    try:
        found = doctor(tracking.url, **tracking.login, AWS_ACCESS_KEY_ID=owner.access_key, AWS_SECRET_ACCESS_KEY=owner.secret_key)
    finally:
        tracking.store.client().delete_object(**where)
    assert states(found, "bucket") == ["ok"], found["bucket"]


def objects(tracking: Tracking) -> list[str]:
    listed = tracking.store.client().list_objects_v2(Bucket=tracking.box.settings["bucket"])
    return [each["Key"] for each in listed.get("Contents", ())]


@pytest.mark.box
def test_a_wrong_password(tracking: Tracking, doctor: Examine) -> None:
    found = doctor(tracking.url, MLFLOW_TRACKING_USERNAME="alice", MLFLOW_TRACKING_PASSWORD="a wrong one")
    assert found["status"] == 1
    assert states(found, "address", "login", "bucket") == ["ok", "failed", "failed"]
    assert "mlwf server env" in found["login"]["cure"]
    assert "a wrong one" not in json.dumps(found)


@pytest.mark.box
def test_a_key_that_only_reads_or_none_is_only_noted(tracking: Tracking, doctor: Examine) -> None:
    """Artifacts go through this server: its users need no key."""
    found = doctor(tracking.url, **tracking.environ)
    assert states(found, "bucket", "bucket-write", "bucket-parts") == ["ok", "note", "note"]
    assert "your key may not do that" in found["bucket-write"]["text"]
    found = doctor(tracking.url, **tracking.login, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_EC2_METADATA_DISABLED="true")
    assert states(found, "bucket") == ["note"]


@pytest.mark.box
def test_an_address_without_the_prefix(tracking: Tracking, doctor: Examine) -> None:
    found = doctor(tracking.box.origin, **tracking.login)
    assert found["address"]["state"] == "failed"
    assert "/mlflow/" in found["address"]["cure"]


@pytest.mark.box
def test_a_server_that_is_not_ours(plain_server: PlainServer, doctor: Examine) -> None:
    found = doctor(plain_server.url)
    assert states(found, "address", "login", "bucket") == ["ok", "note", "note"]


def test_nobody_listens_and_no_such_host(doctor: Examine) -> None:
    (port,) = free_ports(1)
    found = doctor(f"http://127.0.0.1:{port}/mlflow/")
    assert states(found, "name", "connection", "address") == ["ok", "failed", "failed"]
    assert "firewall" in found["connection"]["cure"]
    assert doctor("http://no-such-host.invalid/mlflow/")["name"]["state"] == "failed"


def test_a_proxy_that_would_swallow_it(doctor: Examine) -> None:
    (port,) = free_ports(1)
    found = doctor("http://mlflow.invalid:1/mlflow/", http_proxy="http://user:{}@127.0.0.1:{}".format("hidden-word", port))
    assert found["proxy"]["state"] == "note"
    assert "no_proxy" in found["proxy"]["text"]
    assert "hidden-word" not in json.dumps(found)


class _Late(http.server.BaseHTTPRequestHandler):
    """A server whose clock is a day behind."""

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.send_header("Date", "Mon, 23 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_words: object) -> None:
        return


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


class _Known(_Late):
    """Knows its visitor, as `principal` says."""

    principal = ""

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.end_headers()
        self.wfile.write(json.dumps({"principal": self.principal}).encode())


def login_of(principal: str, home: Path) -> str:
    """What the check of the login says of a server that answers so. Raises what the check raises."""
    with serving(type("_Known", (_Known,), {"principal": principal})) as port:
        server = Server(f"http://127.0.0.1:{port}/mlflow", {"HOME": str(home)}, lambda: "")
        (login,) = (check for check in server.checks() if check.name == "login")
        return login.run()


def test_a_token_that_mlflow_itself_would_not_send(tmp_path: Path) -> None:
    assert login_of("token:k3v9:alice", tmp_path) == "known to the server as token:k3v9:alice"
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username = g\nmlflow_tracking_password = p\n")
    with pytest.raises(Noted, match=r"MLflow itself sends the user and password in .*credentials instead of the token"):
        login_of("token:k3v9:alice", tmp_path)
    assert login_of("basic:g", tmp_path) == "known to the server as basic:g"


def test_a_netrc_that_mlflow_itself_would_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever login its variables say: its library for HTTP goes by that file first."""
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.write_text("machine mlflow01 login bob password x\n")
    assert login_of("basic:alice", tmp_path) == "known to the server as basic:alice"
    netrc.write_text("machine 127.0.0.1 login bob password x\n")
    assert login_of("basic:bob", tmp_path) == "known to the server as basic:bob"
    for principal in ("basic:alice", "token:k3v9:bob"):
        with pytest.raises(Noted, match=r"MLflow itself sends what ~/\.netrc has for 127\.0\.0\.1 instead"):
            login_of(principal, tmp_path)


def test_a_clock_that_is_wrong(doctor: Examine) -> None:
    with serving(_Late) as port:
        found = doctor(f"http://127.0.0.1:{port}/mlflow/")
    assert states(found, "address", "clock") == ["ok", "failed"]


def test_tls_that_is_none(doctor: Examine) -> None:
    with serving(_Late) as port:
        found = doctor(f"https://127.0.0.1:{port}/mlflow/")
    assert found["tls"]["state"] == "failed"


@contextlib.contextmanager
def secure(authority: Authority) -> Iterator[str]:
    """A server with a certificate of that authority; its URL."""
    authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "fullchain.pem", authority.folder / "privkey.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Late) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/mlflow/"
        finally:
            server.shutdown()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
def test_a_certificate_is_judged_as_by_those_who_will_use_it(doctor: Examine, tmp_path: Path) -> None:
    """MLflow goes by a list of its own or by the one that it is told. What the node itself trusts helps nobody, and was told as well."""
    authority = Authority(tmp_path / "ca")
    trusts = {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "SSL_CERT_FILE": str(authority.ca_file)}
    with secure(authority) as url:
        found = doctor(url, **trusts)
        assert states(found, "tls", "address") == ["failed", "failed"]
        assert found["tls"]["cure"] == found["address"]["cure"]
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in found["address"]["cure"]
        found = doctor(url, **trusts, MLFLOW_TRACKING_SERVER_CERT_PATH=str(authority.ca_file))
        assert states(found, "tls", "address") == ["ok", "ok"]
        found = doctor(url, **trusts, MLFLOW_TRACKING_SERVER_CERT_PATH="", MLFLOW_TRACKING_INSECURE_TLS="true")
        assert states(found, "tls", "address") == ["note", "ok"]


def test_a_ca_bundle_that_is_none(doctor: Examine, tmp_path: Path) -> None:
    authority, empty = Authority(tmp_path / "ca"), tmp_path / "empty.pem"
    empty.touch()
    with secure(authority) as url:
        found = doctor(url, MLFLOW_TRACKING_SERVER_CERT_PATH=str(empty))
        assert f"the CA bundle {empty} cannot be used" in found["tls"]["text"]
        found = doctor(url, MLFLOW_TRACKING_SERVER_CERT_PATH=str(tmp_path / "none"))
        assert "names" in found["tls"]["text"]


class _Page(_Late):
    """Answers everything with the same page, as many a portal does; where it is an MLflow, with its version too."""

    version = b""

    def do_GET(self) -> None:
        page = self.version if self.path.endswith("/version") and self.version else b"<html>Log in</html>"
        self.send_response_only(200)
        self.send_header("Date", "Mon, 23 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(page)


def test_a_page_that_is_no_answer_of_a_server(doctor: Examine) -> None:
    """Five checks were said to be at fault themselves."""
    with serving(_Page) as port:
        found = doctor(f"http://127.0.0.1:{port}/mlflow/")
    assert states(found, "address", "login", "version", "bucket", "bucket-parts") == ["failed", *["note"] * 4]


def test_the_version_of_a_server_that_is_not_ours(doctor: Examine) -> None:
    with serving(type("_Plain", (_Page,), {"version": b"3.15.0"})) as port:
        assert "server 3.15.0" in doctor(f"http://127.0.0.1:{port}/mlflow/")["version"]["text"]


def test_who_never_answers_costs_no_more_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def wait() -> str:
            with socket.create_connection(silent.getsockname()) as connection:
                return connection.recv(1).decode()

        found = look([Check("silent", "", wait), Check("quick", "", lambda: "here")], seconds=1)
        monkeypatch.setattr(findings, "PATIENCE", 0.1)
        (patient,) = look([Check("silent", "", wait)], seconds=0.1)
    assert [(each.check, each.state) for each in found] == [("silent", "failed"), ("quick", "ok")]
    assert "no answer within 1 seconds" in found[0].text
    assert "Try again" in found[0].cure
    assert "ask the admins" in patient.cure, "who has waited long is not told to wait again"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_hangs_is_told_once(scheme: str, mlwf: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """It takes connections and never answers. Each thing was asked anew for each check that needs it, until the time was over."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        assert mlwf("doctor", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/mlflow/", "--json", env={"no_proxy": "127.0.0.1"}) == 1
        said = capsys.readouterr().out
        silent.setblocking(False)
        asked = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                asked += 1
    found = {each["check"]: each for each in json.loads(said)["checks"]}
    assert states(found, "connection", "address") == ["ok", "failed"]
    dependent = ("login", "version", "clock", "bucket", "bucket-write", "bucket-parts")
    assert {found[name]["state"] for name in dependent} == {"note"}
    assert {found[name]["text"] for name in dependent} == {"not checked: the server cannot be reached"}
    assert "Try again" not in said
    assert asked == {"http": 3, "https": 4}[scheme], "the port, its TLS, health and info"


def test_what_a_check_raises_is_what_is_found() -> None:
    def failed() -> str:
        raise Failed("what", "why", "cure")

    def noted() -> str:
        raise Noted("words")

    def broken() -> str:
        raise KeyError("x")

    found = look([Check("a", "", failed), Check("b", "", noted), Check("c", "", broken)], seconds=5)
    assert [each.state for each in found] == ["failed", "note", "failed"]
    assert (found[0].text, found[0].cure) == ("what: why", "cure")


def test_the_node_alone(doctor: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container tool that says its version, and none; a mksquashfs that is old."""
    fake_tool(tmp_path, "apptainer", "apptainer version 1.4.5")
    found = doctor(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "apptainer 1.4.5" in found["container"]["text"]
    assert "name" not in found
    assert found["mksquashfs"]["state"] == "ok"
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.3")
    monkeypatch.setattr("mlwf.image.tool.SYSTEM", ())
    found = doctor(PATH=f"{tmp_path}:/nowhere")
    assert (found["mksquashfs"]["state"], found["container"]["state"]) == ("failed", "ok")
    assert "too old: 4.3" in found["mksquashfs"]["text"]
    assert "4.4" in found["mksquashfs"]["cure"]
    found = doctor(PATH="/nowhere")
    assert (found["mksquashfs"]["state"], found["container"]["state"]) == ("note", "failed")
    assert "module load" in found["container"]["cure"]


def test_as_a_person_reads_it(mlwf: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("doctor", "http://no-such-host.invalid/mlflow/", "--seconds", "20", env={"PATH": "/nowhere"}) == 1
    said = capsys.readouterr().out
    assert "✗  Name resolution" in said
    assert "→ Check the host name in the URL." in " ".join(said.split())
    assert mlwf("doctor", "ftp://x/") == 2
