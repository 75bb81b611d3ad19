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


def line(file: Path, request_id: str, *words: str) -> str:
    """The one line that grep finds with those words, once it is there: each part writes its line after its answer."""

    def found() -> list[str]:
        return [each for each in file.read_text().splitlines() if all(word in each for word in (request_id, *words))]

    (one,) = until(found, seconds=20, what=f"{words} of {request_id} in {file}")
    return str(one)


def make_server(live: Live, console: UserConsole, store: S3Store, version: str, *, env: str, request_id: str) -> dict[str, Any]:
    """The operation, asked for in the console under that id."""
    form = {"group_name": GROUP, "env_name": env, "cloud_storage_bucket_name": store.make_bucket(), "credentials": "manual"}
    keys = {"cloud_storage_accesskey_ID": store.owner.access_key, "cloud_storage_secret_accesskey": store.owner.secret_key}
    done = console.do("POST", "servers", {**form, **keys, "mlflow_version": version}, **{"X-Request-Id": request_id})
    with live.client() as client:
        client.wait(client.set_users(GROUP, env, [User("job", Secret("the password of jobs"))]))
    return done


def assert_operation_is_followed(live: Live, console: UserConsole, done: dict[str, Any], request_id: str, asked: str) -> None:
    """The table's first four rows: console, service, operation and audit."""
    assert line(console.log, request_id, f"{asked} 202 ").endswith(f"request={request_id}")
    assert line(live.log_file, request_id, " aihub.access: ", f"{asked.replace('/api/', '/api/v1/')} 202 ")
    assert line(live.log_file, request_id, f"operation {done['id']} ", " succeeded")
    assert live.ask("GET", f"/operations/{done['id']}")[1]["request_id"] == request_id
    for command, key in (("operations", "id"), ("audit", "operation_id")):
        told = json.loads(live.aihub(command, "--limit", "100000", "--json").stdout)
        assert [each[key] for each in told if each["request_id"] == request_id] == [done["id"]], command


def test_one_id_that_a_client_gives_each_of_its_requests(live: Live, console: UserConsole, s3_store: S3Store) -> None:
    """A server made, and opened in the browser: the guard's line of the sign-in has the console's id, and here both are the same."""
    env, request_id = "wine", "followed-1"
    done = make_server(live, console, s3_store, MLFLOW_VERSION, env=env, request_id=request_id)
    assert_operation_is_followed(live, console, done, request_id, "POST /api/servers")
    log = live.state / "servers" / done["server_id"] / "log"
    opened = console.send("GET", f"open/{GROUP}/{env}", **VISIT, **{"X-Request-Id": request_id})
    (ticket,) = re.findall(r'name="ticket" value="([^"]+)"', opened.text)
    headers = {"Origin": PORTAL, "X-Request-Id": request_id}
    with live.client() as client:
        url = client.server(GROUP, env).inside_url
    signed_in = requests.post(f"{url}-/sign-in", data={"ticket": ticket}, headers=headers, timeout=60, allow_redirects=False)
    cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
    found = requests.post(f"{url}{SEARCH}", json={"max_results": 1}, headers={**headers, "Cookie": cookie}, timeout=60)
    assert (signed_in.status_code, found.status_code) == (303, 200)

    assert line(console.log, f"request={request_id}", f"GET /open/{GROUP}/{env} 200")
    assert line(live.log_file, f"request={request_id}", f"POST /api/v1/servers/{GROUP}/{env}/tickets 201")
    signed = f"portal:root signed in with the ticket of request={request_id} request={request_id}"
    assert line(log / "guard.log", request_id).endswith(signed)
    assert line(log / "access.log", f" {request_id}", f"POST /mlflow/{SEARCH} 200", "portal:root")
    assert line(log / "mlflow.log", f"request={request_id}", f"POST /mlflow/{SEARCH} 200")


@pytest.mark.heavy
def test_one_id_from_an_upgrade_in_the_console_to_the_log_of_the_mlflow_that_it_tries(
    live: Live, console: UserConsole, s3_store: S3Store
) -> None:
    """The service's own requests to the server have the id of who asked for the upgrade."""
    environment(OLDEST_VERSION)
    make_server(live, console, s3_store, OLDEST_VERSION, env="older", request_id="made-1")
    path, request_id = f"servers/{GROUP}/older/upgrade", "upgraded-1"
    done = console.do("POST", path, {"mlflow_version": MLFLOW_VERSION}, **{"X-Request-Id": request_id})
    assert_operation_is_followed(live, console, done, request_id, f"POST /api/{path}")
    log = live.state / "servers" / done["server_id"] / "log"
    assert line(log / "access.log", f" {request_id}", f"POST /mlflow/{SEARCH} 200", f"basic:{TRIAL_USER}")
    assert line(log / "mlflow.log", f"request={request_id}", f"POST /mlflow/{SEARCH} 200")
