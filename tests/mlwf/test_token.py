"""`mlwf token`, `mlwf server env --token`, and the client behind them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from mlwf.client import Client
from mlwf.errors import MlwfError
from mlwf.new_token import make_token
from mlwf.transfer.session import tracking_session

from tests.mlwf.fake_service import FakeService

Run = Callable[..., int]
PAIR = "mlflow_tracking_username = group\nmlflow_tracking_password = g-secret\n"


def test_create_prints_the_token_alone_and_the_rest_beside(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    assert mlwf("token", "create", "g/wine", "--hours", "12", "--name", "night") == 0
    told = capsys.readouterr()
    assert told.out == "aihub_token0000000_text\n"
    assert "token0000000 of g/wine" in told.err
    assert "aihub_" not in told.err
    method, path, body, _headers = service.requests[0]
    assert (method, path, body) == ("POST", "/api/v1/servers/g/wine/tokens", {"seconds": 43200, "name": "night"})
    assert service.tokens[0]["state"] == "active", "it was waited for"


@pytest.mark.parametrize(
    ("options", "seconds"), [((), 604800), (("--days", "2"), 172800), (("--hours", "0.5"), 1800), (("--days", "1e304"), 10**10)]
)
def test_how_long_it_lives(service: FakeService, mlwf: Run, options: tuple[str, ...], seconds: int) -> None:
    assert mlwf("token", "create", "g/wine", "--no-wait", *options) == 0
    assert [body for _method, _path, body, _headers in service.requests] == [{"seconds": seconds, "name": ""}]


def test_hours_and_days_are_one_too_many(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("token", "create", "g/wine", "--hours", "1", "--days", "1") == 2
    assert "Give one of them." in capsys.readouterr().err
    assert mlwf("server", "env", "g/wine", "--days", "1") == 2
    assert service.tokens == []


def test_a_minute_is_the_least(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("token", "create", "g/wine", "--hours", "0.01") == 2
    assert "at least a minute" in capsys.readouterr().err
    assert mlwf("token", "create", "g/wine", "--days", "0") == 2
    assert service.tokens == []
    assert mlwf("token", "create", "--help") == 0
    told = capsys.readouterr().out
    assert ("--hours HOURS" in told, "--days DAYS" in told, "0.0" in told) == (True, True, False)


def test_list_and_revoke(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("token", "list", "g/wine") == 0
    assert "no tokens" in capsys.readouterr().out
    mlwf("token", "create", "g/wine", "--name", "night")
    capsys.readouterr()
    assert mlwf("token", "revoke", "g/wine", "token0000000") == 0
    assert mlwf("token", "list", "g/wine") == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[:3] == ["token0000000", "alice", "revoked"]
    assert line.endswith("night")
    assert mlwf("token", "list", "g/wine", "--json") == 0
    assert '"state": "revoked"' in capsys.readouterr().out


def test_env_with_a_token_needs_no_password(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    assert mlwf("server", "env", "g/wine", "--token", "--hours", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "export MLFLOW_TRACKING_TOKEN=aihub_token0000000_text" in lines
    assert lines[-1] == "unset MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_REGISTRY_URI"
    assert "PASSWORD=" not in " ".join(lines)


def credentials(lines: str) -> Path:
    """MLflow's credentials file, in the test's own home."""
    path = Path(os.environ["HOME"]) / ".mlflow" / "credentials"
    path.parent.mkdir()
    path.write_text(f"[mlflow]\n{lines}")
    return path


@pytest.mark.parametrize(("lines", "warns"), [("mlflow_tracking_username = group\n", False), (PAIR, True)])
def test_env_with_a_token_warns_of_a_file_that_goes_before_it(
    lines: str, warns: bool, service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow sends the file's pair instead of the token, and has no setting against it."""
    service.add("g", "wine")
    path = credentials(lines)
    assert mlwf("server", "env", "g/wine", "--token") == 0
    told = capsys.readouterr()
    assert "export MLFLOW_TRACKING_TOKEN=aihub_token0000000_text" in told.out.splitlines()
    assert (f"MLflow will send the user and password in {path}, and not the token" in told.err) == warns
    assert "g-secret" not in told.out + told.err


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({}, "Basic Z3JvdXA6Zy1zZWNyZXQ="),
        ({"TOKEN": "t"}, "Bearer t"),
        ({"TOKEN": "t", "USERNAME": "me"}, "Bearer t"),
        ({"TOKEN": "t", "USERNAME": "me", "PASSWORD": "p"}, "Basic bWU6cA=="),
        ({"USERNAME": "me"}, "Basic bWU6Zy1zZWNyZXQ="),
    ],
)
def test_what_the_environment_says_goes_before_the_file(environ: dict[str, str], sent: str) -> None:
    path = credentials(PAIR)
    surroundings = {"HOME": os.environ["HOME"], **{f"MLFLOW_TRACKING_{name}": value for name, value in environ.items()}}
    session = tracking_session("http://127.0.0.1:9", surroundings)
    assert session.prepare_request(requests.Request("GET", "http://127.0.0.1:9")).headers["Authorization"] == sent
    if "TOKEN" in environ or "PASSWORD" in environ:
        path.write_text("no section")
        tracking_session("http://127.0.0.1:9", surroundings)  # it is not even read


def test_a_token_that_the_server_does_not_take_over_is_revoked(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.token_state = "pending"
    monkeypatch.setattr("mlwf.new_token._TAKEN_OVER_SECONDS", 0.05)
    with Client(service.address) as client, pytest.raises(MlwfError, match="did not take over"):
        make_token(client, "g", "wine", seconds=60, name="", wait=True)
    assert service.tokens[0]["state"] == "revoked"


def test_a_service_that_cannot_tell_now_whether_the_token_is_in_force(service: FakeService) -> None:
    """Its text would be lost, and the token in force."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        service.refuse = (503, {"code": "directory_failed", "detail": "d"}) if len(pauses) < 3 else None

    with Client(service.address) as client:
        made, secret = make_token(client, "g", "wine", seconds=60, name="", wait=True, sleep=sleep)
    assert (made.state, secret.reveal(), len(pauses)) == ("active", "aihub_token0000000_text", 3)


def test_a_ticket_does_not_show_itself(service: FakeService) -> None:
    with Client(service.address) as client:
        ticket = client.ticket("g", "wine")
    assert ticket.ticket.reveal() == "t1.x.y"
    assert "t1.x" not in repr(ticket)
    assert ticket.sign_in_url.endswith("/mlflow/-/sign-in")
