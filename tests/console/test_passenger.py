"""The console as a portal starts it: real Passenger, as an ordinary user, the service on another host behind MUNGE and TLS."""

import os
import pwd
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.ports import free_ports
from tests.service.edge.live import Live, live_service
from tests.support.box import until
from tests.support.munge import munged
from tests.support.passenger import PersonalServer, personal_server
from tests.support.tls import Authority, configuration, nginx

pytestmark = [pytest.mark.heavy, pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another person's web server")]
USER = pwd.getpwnam("games")
ORIGIN = "https://portal.example.org"
SECRET = "the-secret-key-that-nobody-may-read"


@dataclass
class Person:
    """What a person's browser does, through a portal that adds its own headers."""

    server: PersonalServer
    live: Live

    def session(self) -> tuple[requests.Session, str]:
        """A browser with the page open, and the page's token."""
        browser = requests.Session()
        browser.headers.update({"Authorization": "Basic cG9ydGFsOnNlY3JldA==", "X-Forwarded-User": "somebody-else"})
        page = browser.get(self.server.address + "/", timeout=60)
        assert page.status_code == 200, page.text + self.server.log
        for cookie in browser.cookies:
            cookie.secure = False  # the portal's TLS is not in this test
        return browser, page.text.split('name="csrf-token" content="')[1].split('"')[0]

    def send(self, method: str, path: str, body: Any, **headers: str) -> requests.Response:
        browser, token = self.session()
        sent = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", "X-CSRFToken": token, **headers}
        return browser.request(method, f"{self.server.address}/api{path}", json=body, headers=sent, timeout=60)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "site")
    authority.issue()
    munge_port, munge_tls, token_tls = free_ports(3)
    url = f"https://localhost:{munge_tls}"
    replaced = {"8443": f"127.0.0.1:{munge_tls}", "8444": f"127.0.0.1:{token_tls}", ":8441": f":{munge_port}"}
    file = configuration(folder, {**replaced, "mlflow01.example.org": "localhost", "/etc/aihub/tls": str(authority.folder)})
    with munged() as socket, live_service(munge_listen=f"127.0.0.1:{munge_port}", munge_url=url, munge_socket=str(socket)) as live:
        live.start()
        ca_file = live.home / "open" / "ca.pem"
        ca_file.write_bytes(authority.ca_file.read_bytes())
        site = live.home / "open" / "site.yml"
        reached = f"service: '{url}', munge_uid: 0, munge_socket: {socket}, ca_file: {ca_file}"
        site.write_text(f"console: {{{reached}, portal_url: '{ORIGIN}'}}\n")
        environment = {"AIHUB_SITE": str(site), "SECRET_KEY_BASE": SECRET}
        with nginx(file, munge_tls), personal_server(USER.pw_uid, USER.pw_gid, environment) as server:
            yield Person(server, live)


def test_the_page_and_its_files(person: Person) -> None:
    browser, _token = person.session()
    page = requests.get(person.server.address + "/", timeout=60)
    base = "/pun/sys/mlflow-console"
    addresses = [each.split('"')[0] for each in page.text.split(f'"{base}/static/')[1:]]
    assert len(addresses) > 3
    kinds = {browser.get(f"{person.server.address}/static/{each}", timeout=60).headers["Content-Type"].split(";")[0] for each in addresses}
    assert {"text/css", "text/javascript"} <= kinds
    cookie = page.headers["Set-Cookie"]
    assert f"Path={base};" in cookie + ";"
    assert "HttpOnly" in cookie
    assert "Secure" in cookie
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_who_asks_is_the_person_whose_process_it_is(person: Person) -> None:
    browser, _token = person.session()
    me = browser.get(person.server.address + "/api/me", timeout=60)
    assert me.status_code == 200, me.text
    assert me.json()["user"] == USER.pw_name


def test_a_form_is_posted(person: Person) -> None:
    form = {
        "group_name": "games",
        "env_name": "wine",
        "cloud_storage_bucket_name": "wine-bucket",
        "credentials": "manual",
        "cloud_storage_accesskey_ID": "AKEXAMPLEKEYID01",
        "cloud_storage_secret_accesskey": "the-key-typed-into-the-form",
        "endpoint_url": "http://127.0.0.1:1",
    }
    made = person.send("POST", "/servers", form, **{"X-Request-Id": "walk-1"})
    assert (made.status_code, made.headers["X-Request-Id"]) == (202, "walk-1"), made.text
    foreign = person.send("POST", "/servers", form, Origin="https://evil.example.org")
    assert foreign.status_code == 403
    without = person.send("POST", "/servers", form, **{"X-CSRFToken": "x"})
    assert without.status_code == 400
    audit = person.live.aihub("audit", "--json").stdout
    assert '"scheme": "munge"' in audit
    assert '"request_id": "walk-1"' in audit
    until(lambda: "POST /api/servers 202 request=walk-1" in person.server.log, what="the console's line in the portal's log")
    line = f"user={USER.pw_name} request=walk-1 operation={made.json()['id']}"
    until(lambda: line in person.live.log, what="the service's line in its log")
    assert f'"user": "{USER.pw_name}"' in audit


def test_one_process_one_request_at_a_time(person: Person) -> None:
    statuses: list[int] = []

    def ask() -> None:
        browser, _token = person.session()
        statuses.append(browser.get(person.server.address + "/api/state", timeout=60).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * 6
    assert len(person.server.processes()) == 1
    status = Path(f"/proc/{person.server.processes()[0]}/status").read_text()
    assert f"Uid:\t{USER.pw_uid}\t{USER.pw_uid}" in status


def test_the_log_holds_no_header_and_no_secret(person: Person) -> None:
    person.send("POST", "/servers", {"cloud_storage_secret_accesskey": "the-key-typed-into-the-form"})
    for secret in ("cG9ydGFsOnNlY3JldA", SECRET, "the-key-typed-into-the-form", "aihub_console=", "MUNGE:"):
        assert secret not in person.server.log + person.live.log, secret


def test_restart_by_a_file(person: Person) -> None:
    before = person.server.processes()
    browser, token = person.session()
    (person.server.app / "tmp" / "restart.txt").touch()

    def anew() -> bool:
        assert browser.get(person.server.address + "/", timeout=60).status_code == 200
        return bool(person.server.processes()) and person.server.processes() != before

    until(anew, what="another process")
    sent = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", "X-CSRFToken": token}
    answer = browser.post(person.server.address + "/api/servers", json={}, headers=sent, timeout=60)
    assert answer.status_code == 422, answer.text  # the page is still good: SECRET_KEY_BASE signs the session, not the process


def test_a_wrong_setting_is_said(tmp_path: Path) -> None:
    with personal_server(USER.pw_uid, USER.pw_gid, {"AIHUB_CONSOLE_TITEL": "x"}) as server:
        answer = requests.get(server.address + "/", timeout=60)
        assert answer.status_code == 503
        assert "AIHUB_CONSOLE_TITEL is not a setting of the console" in answer.text
        assert "AIHUB_CONSOLE_TITEL is not a setting of the console" in server.log
