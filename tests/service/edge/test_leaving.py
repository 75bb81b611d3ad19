"""Somebody is taken out of a real group, while the service, two members' consoles and a server run: who left is out of all of them, and who
stays is told that the password is known outside, until it is another one.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
from mlwf.secret import Secret

from tests.service.edge.live import Live, request, until
from tests.support.own_accounts import OwnAccounts, own_accounts
from tests.support.runtimes import service_on
from tests.support.s3 import S3Store
from tests.support.user_console import UserConsole, user_console

pytestmark = [pytest.mark.box, pytest.mark.timeout(300), pytest.mark.skipif(os.geteuid() != 0, reason="whoever makes groups is root")]
GROUP, GID = "leavers", 64330
LEAVER, STAYER = ("leaver", 64331), ("stayer", 64332)
ENDED_SECONDS, NEW_USERS_SECONDS = 10.0, 2.0
"""As api.md and console.md say it; the first is two looks, and `LOOK` is shorter than usual."""
LOOK = 2.0
PORTAL = "https://portal.example.org"
AUTH = f"servers/{GROUP}/wine/auth"
"""What **Update Auth Info** asks for."""


def console_of(user: str, live: Live, accounts: OwnAccounts) -> AbstractContextManager[UserConsole]:
    """Started as the portal starts it: as the user, with the groups that the user has now."""
    as_user = ("setpriv", f"--reuid={user}", "--regid=nogroup", "--init-groups")
    return user_console(live, *accounts.within, *as_user, name=user)


@pytest.fixture
def accounts() -> Iterator[OwnAccounts]:
    with own_accounts() as made:
        made.add_group(GROUP, GID)
        for name, uid in (LEAVER, STAYER):
            made.add_user(name, uid, GROUP)
        yield made


@pytest.fixture
def live(accounts: OwnAccounts, s3_store: S3Store) -> Iterator[Live]:
    with service_on(None, s3_store, within=accounts.within, observe_seconds=LOOK, portal_url=PORTAL) as service:
        yield service


def write_auth_file(live: Live, password: str) -> None:
    """In the group's area, as its members may read it."""
    file = Path(live.settings["group_area"]) / GROUP / "aihub" / "wine" / "yml" / "basic_auth.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{{'user_name': 'job', 'pass': '{password}'}}\n")
    os.chown(file, 0, GID)
    file.chmod(0o640)


def api(live: Live, who: tuple[str, int], method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    return live.ask_as(who[1], request(method, path, body))


def sign_in_and_token(live: Live, url: str) -> list[dict[str, str]]:
    """Headers of two requests of the leaver's that need no password: from a browser that **Open** signed in, and from a job."""
    asked = [(f"/servers/{GROUP}/wine/tickets", None), (f"/servers/{GROUP}/wine/tokens", {"seconds": 3600})]
    (first, ticket), (second, token) = (api(live, LEAVER, "POST", path, body) for path, body in asked)
    assert (first, second) == (201, 201), (ticket, token)
    form, headers = {"ticket": ticket["ticket"]}, {"Origin": PORTAL}
    answer = requests.post(f"{url}-/sign-in", data=form, headers=headers, timeout=60, allow_redirects=False)
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    return [{"Cookie": cookie, "Origin": PORTAL}, {"Authorization": f"Bearer {token['secret']}"}]


def status_of(url: str, *, password: str = "", **headers: str) -> int:
    """Of a question to MLflow."""
    session = requests.Session()
    session.trust_env = False
    auth = ("job", password) if password else None
    with session:
        path = "api/2.0/mlflow/experiments/search"
        return session.post(f"{url}{path}", json={"max_results": 1}, auth=auth, headers=headers, timeout=60).status_code


def former_members(warnings: list[dict[str, Any]]) -> str:
    """The sentence about them; empty: there are none."""
    return "".join(str(each["detail"]) for each in warnings if each["code"] == "former_member")


def test_a_member_is_removed_from_the_group(live: Live, accounts: OwnAccounts, s3_store: S3Store) -> None:
    url = make_server(live, s3_store)
    with console_of(LEAVER[0], live, accounts) as leaver, console_of(STAYER[0], live, accounts) as stayer:
        write_auth_file(live, "the first password")
        leaver.do("POST", AUTH)
        ways_in = sign_in_and_token(live, url)
        for way in ways_in:
            until(lambda way=way: status_of(url, **way) == 200, what="a way in without the password")
        assert [each["env_name"] for each in leaver.servers()] == ["wine"]
        assert former_members(stayer.servers()[0]["warnings"]) == ""

        accounts.remove_from(GROUP, LEAVER[0])
        assert_is_out_of_api_and_console(live, leaver)
        until(lambda: [status_of(url, **way) for way in ways_in] == [401, 401], seconds=ENDED_SECONDS, what="the end of both ways in")
        until(lambda: former_members(stayer.servers()[0]["warnings"]), seconds=ENDED_SECONDS, what="the mark")
        assert_says_that_the_password_is_known(live, stayer)
        assert status_of(url, password="the first password") == 200, "which is why it is said"

        stayer.do("POST", AUTH)
        assert_says_that_the_password_is_known(live, stayer)
        write_auth_file(live, "the second password")
        stayer.do("POST", AUTH)
        until(lambda: status_of(url, password="the first password") == 401, seconds=NEW_USERS_SECONDS, what="the old password's end")
        assert status_of(url, password="the second password") == 200
        assert former_members(stayer.servers()[0]["warnings"]) == ""
        assert former_members(api(live, STAYER, "GET", f"/servers/{GROUP}/wine")[1]["warnings"]) == ""
        assert_is_out_of_api_and_console(live, leaver)


def make_server(live: Live, store: S3Store) -> str:
    """Made by an admin; where it is."""
    with live.client() as client:
        wish = {"group": GROUP, "env_name": "wine", "bucket": store.make_bucket(), "access_key_id": store.owner.access_key}
        client.wait(client.create(**wish, secret_access_key=Secret(store.owner.secret_key)), timeout=200)
        return str(client.server(GROUP, "wine").inside_url)


def assert_is_out_of_api_and_console(live: Live, console: UserConsole) -> None:
    """At once: each request is judged by what the group is now. The console's own process has the group for as long as it runs."""
    asked = [("GET", ""), ("POST", "/stop"), ("POST", "/tickets"), ("GET", "/tokens"), ("DELETE", "")]
    refused = [api(live, LEAVER, method, f"/servers/{GROUP}/wine{path}") for method, path in asked]
    assert [(status, answer["code"]) for status, answer in refused] == [(403, "not_a_member")] * len(asked)
    assert api(live, LEAVER, "GET", "/servers?deleted=true") == (200, {"servers": []})
    assert [each["name"] for each in api(live, LEAVER, "GET", "/me")[1]["groups"]] == ["nogroup"]
    assert console.servers() == []
    for path in ("auth", "stop", "start"):
        status, answer = console.ask("POST", f"servers/{GROUP}/wine/{path}")
        assert (status, answer["code"]) == (403, "not_a_member")
    assert console.ask("GET", "me")[1]["left"] == [GROUP]


def assert_says_that_the_password_is_known(live: Live, console: UserConsole) -> None:
    said = [api(live, STAYER, "GET", f"/servers/{GROUP}/wine")[1]["warnings"], console.servers()[0]["warnings"]]
    assert [former_members(each) for each in said] == [f"The password is known to a former member of the group ({LEAVER[0]})"] * 2
