import json
import socket
import threading
from pathlib import Path

import pytest
from mlwf.answers import Operation
from mlwf.client import Client, OperationFailedError, ServiceError, ServiceUnavailable, StillRunningError
from mlwf.errors import WrongUseError
from mlwf.secret import Secret
from mlwf.user import User
from mlwf.wire import transport

from tests.mlwf.fake_service import FakeService

SECRET = "wJalrXUtnFEMI-a-secret"


def test_every_route(service: FakeService) -> None:
    service.add("gaa50000", "wine")
    with Client(service.address) as client:
        assert client.health().status == "ok"
        assert client.me().groups[0].may_create is True
        assert [each.env_name for each in client.servers()] == ["wine"]
        client.servers(all=True, deleted=True)
        found = client.server("gaa50000", "wine")
        client.create(group="g", env_name="e", bucket="b", access_key_id="AK", secret_access_key=Secret(SECRET), idle_seconds=0)
        client.start("g", "e")
        client.stop("g", "e")
        client.set_users("g", "e", [User("alice", Secret(SECRET))])
        client.set_storage("g", "e", access_key_id="AK", secret_access_key=Secret(SECRET), region="r")
        client.delete("g", "e")
        client.restore("g", "e")
        client.restore("g", "e", "k3v9x2m7q4ab")
        client.operation("op_1")
    assert found.storage.bucket == "b"
    assert found.warnings[0].code == "former_member"
    assert [(method, path.removeprefix("/api/v1"), body) for method, path, body, _ in service.requests] == [
        ("GET", "/health", None),
        ("GET", "/me", None),
        ("GET", "/servers", None),
        ("GET", "/servers?all=true&deleted=true", None),
        ("GET", "/servers/gaa50000/wine", None),
        (
            "POST",
            "/servers",
            {"group": "g", "env_name": "e", "bucket": "b", "access_key_id": "AK", "secret_access_key": SECRET, "idle_seconds": 0},
        ),
        ("POST", "/servers/g/e/start", None),
        ("POST", "/servers/g/e/stop", None),
        ("PUT", "/servers/g/e/users", {"users": [{"user_name": "alice", "pass": SECRET}]}),
        ("PUT", "/servers/g/e/storage", {"access_key_id": "AK", "secret_access_key": SECRET, "region": "r"}),
        ("DELETE", "/servers/g/e", None),
        ("POST", "/servers/g/e/restore", None),
        ("POST", "/servers/g/e/restore?server_id=k3v9x2m7q4ab", None),
        ("GET", "/operations/op_1", None),
    ]


def test_names_cannot_leave_their_place_in_the_path(service: FakeService) -> None:
    with Client(service.address) as client:
        for name in ("../c?d", "..", ""):
            with pytest.raises(ServiceError):
                client.server("a/b", name)
    assert [path for _method, path, *_ in service.requests] == ["/api/v1/servers/a%2Fb/..%2Fc%3Fd"]


def test_a_problem_document_becomes_an_error(service: FakeService) -> None:
    problem = {"title": "t", "code": "wrong_bucket", "detail": "No such bucket.", "cure": "Create it.", "fields": {"bucket": "no such"}}
    service.refuse = (422, problem)
    with Client(service.address) as client, pytest.raises(ServiceError) as caught:
        client.me()
    error = caught.value
    assert (error.code, error.status, error.fields) == ("wrong_bucket", 422, {"bucket": "no such"})
    assert str(error) == "No such bucket. Create it."


@pytest.mark.parametrize(("status", "text"), [(200, "<html>"), (500, "<html>"), (502, "[]"), (200, "[1]"), (200, "{}")])
def test_an_answer_of_another_shape_is_said(service: FakeService, status: int, text: str) -> None:
    service.refuse = (status, text)
    with Client(service.address) as client, pytest.raises(ServiceError) as caught:
        client.me()
    assert caught.value.code == "unexpected_answer"


def test_the_language_is_sent_and_used(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    Client(service.address, language="ja").health()
    monkeypatch.setenv("LC_ALL", "ja_JP.UTF-8")
    Client(service.address).health()
    assert [headers["Accept-Language"] for *_, headers in service.requests] == ["ja", "ja"]
    monkeypatch.setenv("LC_ALL", "C")
    with pytest.raises(ServiceUnavailable) as caught:
        Client("unix:///nowhere/service.sock", language="ja").health()
    assert "ソケットがありません" in str(caught.value)


def test_proxies_and_netrc_have_no_say(service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login x password y\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Client(service.address) as client:
        assert client.health().status == "ok"
    assert "Authorization" not in service.requests[0][3]


def test_a_path_longer_than_af_unix_holds(service: FakeService, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "service.sock").symlink_to(service.socket)
    with Client(f"unix://{deep}/service.sock") as client:
        assert client.health().status == "ok"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        Client(f"unix://{tmp_path}/none.sock").health()
    assert caught.value.why == "there is no such socket"
    assert "MLWF_SERVICE" in caught.value.cure


def test_a_stopped_service_and_a_silent_one(service: FakeService) -> None:
    path = service.folder / "dead.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    with pytest.raises(ServiceUnavailable, match="nobody listens"):
        Client(f"unix://{path}").health()
    dead.listen(1)
    with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.2 seconds"):
        Client(f"unix://{path}", timeout=0.2).health()
    dead.close()


def test_a_change_is_waited_for_longer_and_may_be_done_unanswered(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(transport, "CHANGE_SECONDS", 0.3)
    path = service.folder / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(4)
        with Client(f"unix://{path}", language="en") as client:
            with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.1 seconds\. Try again in a moment\."):
                client.health()
            with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.3 seconds\. It may still be done"):
                client.stop("gaa50000", "wine")


@pytest.mark.parametrize("address", ["http://x", "unix://service.sock", "unix:///", "/run/x", "ftp://x"])
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(WrongUseError):
        Client(address)


def test_wait_sees_each_change_and_raises_the_problem(service: FakeService) -> None:
    seen: list[str] = []
    with Client(service.address) as client:
        done = client.wait(client.start("g", "e"), on_change=lambda operation: seen.append(operation.state))
        assert (done.message, seen) == ("Service created", ["pending", "running", "succeeded"])
        service.error = {"code": "wrong_key", "detail": "The key is wrong.", "cure": "Use another.", "log": ["l1"]}
        with pytest.raises(OperationFailedError) as caught:
            client.wait(client.start("g", "e"))
    assert caught.value.problem.code == "wrong_key"
    assert caught.value.operation.steps[0].state == "failed"
    assert str(caught.value) == "The key is wrong. Use another."


def test_wait_survives_a_restart_of_the_service(service: FakeService) -> None:
    hidden = service.folder / "hidden"
    service.socket.rename(hidden)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            hidden.rename(service.socket)

    with Client(service.address) as client:
        client._session.headers["Connection"] = "close"
        done = client.wait(Operation.from_json({"id": "op_1", "kind": "start", "state": "pending"}), timeout=20, sleep=sleep)
    assert done.state == "succeeded"
    assert len(pauses) >= 3


def test_a_proxy_before_a_service_that_is_away(service: FakeService) -> None:
    """nginx's page is no answer of a service of another version; where the service is started anew, it is waited for."""
    service.refuse = (502, "<html>bad gateway")
    with Client(service.address) as client:
        with pytest.raises(ServiceUnavailable, match=r"the proxy in front of it answers 502\. Try again"):
            client.me()
        with pytest.raises(ServiceUnavailable, match="It may still be done"):
            client.start("g", "e")
        started = Operation.from_json({"id": "op_1", "kind": "start", "state": "pending"})
        done = client.wait(started, timeout=20, sleep=lambda _seconds: setattr(service, "refuse", None))
    assert done.state == "succeeded"


BUSY = {"code": "directory_failed", "detail": "The directory did not answer.", "cure": "Try again."}


@pytest.mark.parametrize("location", ["https://sso.example/login", "//[", "http://[::1"])
def test_an_answer_that_leads_elsewhere_is_none_of_the_api(service: FakeService, location: str) -> None:
    """As a portal's login page does, whatever it takes for an address."""
    service.refuse, service.headers = (302, ""), {"Location": location}
    with Client(service.address) as client, pytest.raises(ServiceError, match=r"status 302\) is not understood"):
        client.me()


@pytest.mark.parametrize("status", [429, 503])
def test_wait_bears_a_service_that_cannot_answer_now(service: FakeService, status: int) -> None:
    service.refuse = (status, BUSY)
    started = Operation.from_json({"id": "op_1", "kind": "start", "state": "pending"})
    with Client(service.address) as client:
        with pytest.raises(ServiceError, match="The directory did not answer"):
            client.wait(started, timeout=0.01)
        asked = len(service.requests)

        def sleep(_seconds: float) -> None:
            service.refuse = service.refuse if len(service.requests) < asked + 2 else None

        assert client.wait(started, timeout=20, sleep=sleep).state == "succeeded"


def test_wait_does_not_bear_a_refusal_that_stays(service: FakeService) -> None:
    service.refuse = (403, BUSY)
    started = Operation.from_json({"id": "op_1", "kind": "start", "state": "pending"})
    with Client(service.address) as client, pytest.raises(ServiceError):
        client.wait(started, timeout=20)
    assert len(service.requests) == 1


def test_wait_gives_up_in_time(service: FakeService) -> None:
    with Client(service.address) as client, pytest.raises(StillRunningError) as caught:
        client.wait(client.start("g", "e"), timeout=0)
    assert caught.value.operation.id == "op_1"


def test_a_secret_shows_nothing() -> None:
    secret = Secret(SECRET)
    assert SECRET not in f"{secret!r} {secret} {secret:>9} {User('a', secret)!r} {[secret]}"
    assert secret.reveal() == SECRET
    assert secret == Secret(SECRET) != Secret("x")
    with pytest.raises(TypeError):
        json.dumps({"x": secret})
    with pytest.raises(TypeError):
        __import__("pickle").dumps(secret)


def test_many_threads_share_a_client(service: FakeService) -> None:
    with Client(service.address) as client:
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(client.health().status)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["ok"] * 6


def test_every_method_has_its_contract() -> None:
    assert [name for name, each in vars(Client).items() if not name.startswith("_") and not each.__doc__] == []
