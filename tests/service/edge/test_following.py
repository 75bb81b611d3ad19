"""Whoever has a request's id follows it through every log of docs/howto/monitor.md: real console, service, guard, nginx and MLflow."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlwf.client import User
from mlwf.secret import Secret

from backend.wishes.trial_words import USER as TRIAL_USER
from tests.service.edge.live import Live, until
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, environment
from tests.support.runtimes import service_on
from tests.support.s3 import S3Store
from tests.support.user_console import UserConsole, user_console

pytestmark = [pytest.mark.box, pytest.mark.timeout(400), pytest.mark.skipif(os.geteuid() != 0, reason="the caller's group is root's")]
GROUP, PORTAL = "root", "https://portal.example.org"
SEARCH = "api/2.0/mlflow/experiments/search"
VISIT = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def live(s3_store: S3Store) -> Iterator[Live]:
    with service_on(None, s3_store, portal_url=PORTAL, mlflow_versions=[MLFLOW_VERSION, OLDEST_VERSION]) as service:
        yield service


@pytest.fixture(scope="module")
def console(live: Live) -> Iterator[UserConsole]:
    with user_console(live) as running:
        yield running


def lines(file: Path, request_id: str) -> list[str]:
    """What grep finds, once it is there: each part writes its line after its answer."""
    return until(lambda: [line for line in file.read_text().splitlines() if request_id in line], seconds=20, what=f"{request_id} in {file}")


def make_server(live: Live, console: UserConsole, store: S3Store, version: str, request_id: str) -> dict[str, Any]:
    """The operation, asked for in the console under that id."""
    form = {"group_name": GROUP, "env_name": request_id, "cloud_storage_bucket_name": store.make_bucket(), "credentials": "manual"}
    keys = {"cloud_storage_accesskey_ID": store.owner.access_key, "cloud_storage_secret_accesskey": store.owner.secret_key}
    done = console.do("POST", "servers", {**form, **keys, "mlflow_version": version}, **{"X-Request-Id": request_id})
    with live.client() as client:
        client.wait(client.set_users(GROUP, request_id, [User("job", Secret("the password of jobs"))]))
    return done


def assert_operation_is_followed(live: Live, console: UserConsole, done: dict[str, Any], request_id: str, asked: str) -> None:
    """The table's first four rows: console, service, operation and audit."""
    assert any(line.endswith(f"{asked} 202 request={request_id}") for line in lines(console.log, request_id))
    said = lines(live.log_file, request_id)
    assert [line for line in said if " aihub.access: " in line and asked.replace("/api/", "/api/v1/") in line and " 202 " in line]
    assert [line for line in said if f"operation {done['id']} " in line and " succeeded " in line]
    assert live.ask("GET", f"/operations/{done['id']}")[1]["request_id"] == request_id
    for command, key in (("operations", "id"), ("audit", "operation_id")):
        told = json.loads(live.aihub(command, "--limit", "100000", "--json").stdout)
        assert [each[key] for each in told if each["request_id"] == request_id] == [done["id"]], command


def test_one_id_that_a_client_gives_each_of_its_requests(live: Live, console: UserConsole, s3_store: S3Store) -> None:
    """A server made, and opened in the browser: the guard's line of the sign-in has the console's id, and here both are the same."""
    request_id = "followed"
    done = make_server(live, console, s3_store, MLFLOW_VERSION, request_id)
    assert_operation_is_followed(live, console, done, request_id, "POST /api/servers")
    log = live.state / "servers" / done["server_id"] / "log"
    opened = console.send("GET", f"open/{GROUP}/{request_id}", **VISIT, **{"X-Request-Id": request_id})
    (ticket,) = re.findall(r'name="ticket" value="([^"]+)"', opened.text)
    headers = {"Origin": PORTAL, "X-Request-Id": request_id}
    with live.client() as client:
        url = client.server(GROUP, request_id).inside_url
    signed_in = requests.post(f"{url}-/sign-in", data={"ticket": ticket}, headers=headers, timeout=60, allow_redirects=False)
    cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
    found = requests.post(f"{url}{SEARCH}", json={"max_results": 1}, headers={**headers, "Cookie": cookie}, timeout=60)
    assert (signed_in.status_code, found.status_code) == (303, 200)

    assert any(f"GET /open/{GROUP}/{request_id} 200 request={request_id}" in line for line in lines(console.log, request_id))
    assert [line for line in lines(live.log_file, request_id) if f"POST /api/v1/servers/{GROUP}/{request_id}/tickets" in line]
    (guard,) = lines(log / "guard.log", request_id)
    assert guard.endswith(f"portal:root signed in with the ticket of request={request_id} request={request_id}")
    assert [line for line in lines(log / "access.log", f" {request_id}") if f"POST /mlflow/{SEARCH} 200" in line and "portal:root" in line]
    assert [line for line in lines(log / "mlflow.log", f"request={request_id}") if f"POST /mlflow/{SEARCH} 200" in line]


@pytest.mark.heavy
def test_one_id_from_an_upgrade_in_the_console_to_the_log_of_the_mlflow_that_it_tries(
    live: Live, console: UserConsole, s3_store: S3Store
) -> None:
    """The service's own requests to the server have the id of who asked for the upgrade."""
    environment(OLDEST_VERSION)
    make_server(live, console, s3_store, OLDEST_VERSION, "older")
    path, request_id = f"servers/{GROUP}/older/upgrade", "upgraded"
    done = console.do("POST", path, {"mlflow_version": MLFLOW_VERSION}, **{"X-Request-Id": request_id})
    assert_operation_is_followed(live, console, done, request_id, f"POST /api/{path}")
    log = live.state / "servers" / done["server_id"] / "log"
    assert [
        line
        for line in lines(log / "access.log", f" {request_id}")
        if f"basic:{TRIAL_USER}" in line and f"POST /mlflow/{SEARCH} 200" in line
    ]
    assert [line for line in lines(log / "mlflow.log", f"request={request_id}") if f"POST /mlflow/{SEARCH} 200" in line]
