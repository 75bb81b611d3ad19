"""One id for one request: in the answer, in the access log and in MLflow's log; a client's own only where it is well-formed."""

import json
import logging
import re
import socket
from collections.abc import Callable
from uuid import uuid4

import pytest
import requests
from mlwf.secret import Secret

from backend import log as logs
from backend.adapters.trial import HttpTrial
from backend.runtimes.boxlogs import telling
from backend.wishes.portpool import is_bindable, joined
from backend.wishes.trial_words import USER as TRIAL_USER
from tests.support.box import MLFLOW_VERSION, PASSWORD, USER, Box, until, users_document
from tracking_server.mlflow_process.request_log import _REQUEST, Lines

SEARCH = "/api/2.0/mlflow/experiments/search"
MADE = re.compile(r"[0-9a-f]{32}")


def lines_of(box: Box, log: str, text: str) -> list[str]:
    """nginx writes its line after the answer, and MLflow when all is sent."""
    path = box.home / "log" / log
    return until(lambda: [line for line in path.read_text().splitlines() if text in line], seconds=10, what=f"{text} in {log}")


@pytest.mark.box
def test_a_clients_id_is_in_the_answer_and_in_both_logs(box: Box) -> None:
    given = f"Walk-1.a_{uuid4().hex}"
    answer = box.request("POST", SEARCH, json={"max_results": 1}, headers={"X-Request-ID": given})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (200, given)
    (access,) = lines_of(box, "access.log", given)
    assert access.endswith(f" {given}")
    assert f"POST /mlflow{SEARCH} 200" in access
    (mlflow,) = lines_of(box, "mlflow.log", f"ms request={given}")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT[\d:.]+Z INFO request: POST /mlflow{re.escape(SEARCH)} 200 \d+ ms request={given}", mlflow)
    assert telling([mlflow]) == []


@pytest.mark.box
def test_without_one_it_is_made(box: Box) -> None:
    first, second = (box.request("POST", SEARCH, json={"max_results": 1}).headers["X-Request-Id"] for _ in range(2))
    assert first != second
    for made in (first, second):
        assert MADE.fullmatch(made)
        assert len(lines_of(box, "access.log", made)) == len(lines_of(box, "mlflow.log", f"ms request={made}")) == 1


@pytest.mark.box
def test_an_upgrades_own_requests_have_the_id_of_who_asked_for_it(box: Box) -> None:
    asked, secret = f"console-{uuid4().hex}", "what a trial logs in with"
    box.replace("users.json", users_document({USER: PASSWORD, TRIAL_USER: secret}))
    until(lambda: box.request("GET", "/-/info", auth=(TRIAL_USER, secret)).status_code == 200, seconds=10, what="the trial's user")
    with logs.about(request_id=asked):
        HttpTrial().look(address=("127.0.0.1", box.port), password=Secret(secret), version=MLFLOW_VERSION)
    assert lines_of(box, "mlflow.log", f"ms request={asked}")
    assert any("experiments/search 200" in line for line in lines_of(box, "access.log", asked))


@pytest.mark.box
def test_a_trial_reaches_a_box_at_an_address_of_six(own_box: Callable[..., Box]) -> None:
    box = own_box()
    box.write_settings(**{**box.settings, "listen": joined("::1", box.port), "public_hosts": [joined("::1", box.port)]})
    box.write_users({TRIAL_USER: PASSWORD})
    box.spawn()
    until(lambda: not is_bindable("::1", box.port), what="the guard's socket")
    HttpTrial().look(address=("::1", box.port), password=Secret(PASSWORD), version=MLFLOW_VERSION)


HOSTILE = {
    "quotes": "\"';--",
    "a space": "one two",
    "long": "x" * 65,
    "very long": "x" * 10240,
    "a forged line": "x\tINFO request: GET / 200",
    "a variable": "$request_uri",
    "not ASCII": "café",
    "empty": "",
}


@pytest.mark.box
@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_id_is_replaced(box: Box, sent: str) -> None:
    mark = uuid4().hex[:12]
    headers = {"X-Request-ID": f"{sent}{mark}".encode() if sent not in {"", HOSTILE["long"]} else sent.encode()}
    answer = box.request("POST", SEARCH, json={"max_results": 1}, headers=headers)
    assert answer.status_code == 200
    made = answer.headers["X-Request-Id"]
    assert MADE.fullmatch(made)
    (access,) = lines_of(box, "access.log", made)
    (mlflow,) = lines_of(box, "mlflow.log", f"ms request={made}")
    assert mark not in access + mlflow
    assert "x" * 60 not in access + mlflow


@pytest.mark.box
def test_a_line_break_in_an_id_makes_no_line_in_a_log(box: Box) -> None:
    """Sent raw: an honest client refuses to."""
    mark = uuid4().hex
    head = f"GET /mlflow/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: a\r\n {mark} forged\r\n\r\n"
    with socket.create_connection(("127.0.0.1", box.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    status = int(answer.split()[1])
    assert status in {200, 400}  # folded headers are refused, or the line after the break is no header at all
    made = box.request("GET", "/version").headers["X-Request-Id"]
    lines_of(box, "access.log", made)  # all before it is written
    assert mark not in (box.home / "log" / "access.log").read_text()


@pytest.mark.box
def test_every_kind_of_answer_has_it(box: Box) -> None:
    given = uuid4().hex
    headers = {"X-Request-ID": given}
    asked: list[tuple[int, requests.Response]] = [
        (308, requests.get(f"{box.origin}/", headers=headers, timeout=20, allow_redirects=False)),
        (200, requests.get(f"{box.url}/health", headers=headers, timeout=20)),
        (200, box.request("GET", "/-/info", headers=headers)),
        (200, box.request("GET", "/", headers=headers)),
        (401, box.request("GET", "/", auth=("nobody", "x"), headers=headers)),
        (403, box.request("GET", "/gateway", headers=headers)),
        (404, box.request("GET", "/../elsewhere", headers=headers)),
        (404, box.request("GET", "/api/2.0/mlflow/runs/get", params={"run_id": "f" * 32}, headers=headers)),
    ]
    assert [(status, answer.headers.get("X-Request-Id")) for status, answer in asked] == [(status, given) for status, _ in asked]
    assert [answer.status_code for _, answer in asked] == [status for status, _ in asked]


@pytest.mark.box
def test_the_guard_says_it_too(box: Box) -> None:
    given = uuid4().hex
    answer = requests.post(f"{box.url}/-/sign-in", data={}, headers={"X-Request-ID": given}, timeout=20)
    assert answer.status_code == 400
    (line,) = lines_of(box, "guard.log", given)
    assert line.endswith(f"a sign-in or sign-out was refused: no_ticket request={given}")


def test_a_traceback_belongs_to_its_request() -> None:
    token = _REQUEST.set("rid-1")
    try:
        json.loads("{")
    except ValueError as error:
        record = logging.LogRecord("mlflow.server", logging.ERROR, __file__, 1, "it\nfailed", (), (type(error), error, error.__traceback__))
        first, *rest = Lines().format(record).splitlines()
    finally:
        _REQUEST.reset(token)
    assert first.endswith("Z ERROR mlflow.server: it | failed request=rid-1")
    assert rest[0] == "Traceback (most recent call last):"
    assert telling([first, *rest]) == [first, *rest]


@pytest.mark.box
def test_mlflow_says_what_each_of_its_threads_does_and_goes_on(box: Box) -> None:
    pids = [each.pid for each in box.find_all("mlflow_process")]
    assert re.search(r"Current thread 0x.*mlflow_process/server\.py", box.stacks(), re.DOTALL)
    assert [each.pid for each in box.find_all("mlflow_process")] == pids
    assert box.request("POST", SEARCH, json={"max_results": 1}).status_code == 200


@pytest.mark.box
def test_a_line_of_the_access_log_is_short_whatever_was_asked(box: Box) -> None:
    """Anybody can write there, without a password, as fast as the network is."""
    given = f"Long-{uuid4().hex}"
    answer = box.request("GET", f"/{'%FF' * 3000}", headers={"X-Request-ID": given}, auth=None)
    assert answer.status_code == 401
    (line,) = lines_of(box, "access.log", given)
    assert len(line) < 2500
    assert "..." in line
