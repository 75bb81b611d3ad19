"""What keeps other pages out."""

from __future__ import annotations

import logging
import re

import pytest
from flask import Flask
from playwright.sync_api import expect

from ood_app.app import create_app
from ood_app.settings import load
from tests.console.conftest import MOUNT, Caller, Opener
from tests.console.fake_service import FakeService

CHANGES = [
    ("POST", "/servers"),
    ("POST", "/jobs"),
    ("POST", "/servers/gaa50000/wine/start"),
    ("POST", "/servers/gaa50000/wine/rollback"),
    ("DELETE", "/servers/gaa50000/wine"),
    ("PUT", "/servers/gaa50000/wine/storage"),
    ("PUT", "/servers/gaa50000/wine/size"),
    ("POST", "/servers/gaa50000/wine/upgrade"),
    ("DELETE", "/servers/gaa50000/wine/tokens/t00000000001"),
    ("POST", "/servers/gaa50000/wine/auth"),
    ("POST", "/servers/gaa50000/wine/auth-file"),
]
FOREIGN = [
    {"Origin": "https://evil.example.org"},
    {"Origin": "null"},
    {"Origin": "http://localhost:81"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_every_change_wants_the_token(caller: Caller, service: FakeService, method: str, path: str) -> None:
    service.add("gaa50000", "wine")
    for token in ("", "wrong"):
        answer = caller.send(method, path, **{"X-CSRFToken": token})
        assert (answer.status_code, answer.json["code"]) == (400, "page_too_old")
    assert not service.received


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_every_change_wants_the_pages_own_origin(
    caller: Caller, service: FakeService, method: str, path: str, headers: dict[str, str]
) -> None:
    service.add("gaa50000", "wine")
    answer = caller.send(method, path, **headers)
    assert (answer.status_code, answer.json["code"]) == (403, "foreign_page")
    assert not service.received


def test_every_changing_route_is_in_the_table_above(app: Flask) -> None:
    routes = {rule.rule for rule in app.url_map.iter_rules() if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}}
    known = {
        path.replace("/servers/gaa50000/wine/start", "/servers/<group>/<env>/<change>")
        .replace("gaa50000/wine", "<group>/<env>")
        .replace("t00000000001", "<token_id>")
        for _method, path in CHANGES
    }
    visits = {"/open/<group>/<env>", "/tokens/<group>/<env>"}  # with suites of their own
    assert routes == {*(f"/api{path}" for path in known)} | visits


def test_a_request_that_says_nothing_of_its_origin_is_refused(caller: Caller) -> None:
    answer = caller.client.post("/api/servers", json={}, headers={"X-CSRFToken": caller.token})
    assert (answer.status_code, answer.get_json()["code"]) == (403, "foreign_page")


@pytest.mark.parametrize("portal", ["https://portal.example.org", "https://Portal.Example.org", "https://portal.example.org:443/"])
def test_behind_a_portal_only_its_origin_counts(service: FakeService, portal: str) -> None:
    app = create_app(
        load(
            {
                "MLWF_SERVICE": f"unix://{service.socket}",
                "SECRET_KEY_BASE": "k",
                "AIHUB_CONSOLE_PORTAL_URL": portal,
            }
        )
    )
    client = app.test_client()
    page = client.get("/", base_url="https://localhost").get_data(as_text=True)
    token = page.split('name="csrf-token" content="')[1].split('"')[0]
    service.add("gaa50000", "wine", "stopped")

    def start(origin: str) -> int:
        headers = {"Origin": origin, "X-CSRFToken": token}
        return client.post("/api/servers/gaa50000/wine/start", json={}, headers=headers, base_url="https://localhost").status_code

    assert start("https://localhost") == 403
    assert start("https://portal.example.org") == 202


def test_without_a_portal_only_loopback_names_are_served(app: Flask) -> None:
    client = app.test_client()
    for host in ("rebound.example.org", "10.0.0.1", "localhost.example.org"):
        assert client.get("/", base_url=f"http://{host}").status_code == 403
    for host in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        assert client.get("/", base_url=f"http://{host}").status_code == 200


def test_the_cookie_belongs_to_the_mount_and_to_no_script(app: Flask) -> None:
    answer = app.test_client().get("/", environ_overrides={"SCRIPT_NAME": MOUNT})
    parts = {part.strip() for part in answer.headers["Set-Cookie"].split(";")}
    assert {"HttpOnly", "SameSite=Lax", f"Path={MOUNT}"} <= parts


@pytest.mark.browser
def test_a_visit_by_another_sites_link_keeps_language_and_open_tabs(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.get_by_role("link", name="日本語").click()
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_enabled()
    foreign = page.context.new_page()
    link = f'<a href="{open_page.address}">the console</a>'
    foreign.route("http://wiki.test/", lambda route: route.fulfill(content_type="text/html", body=link))
    foreign.goto("http://wiki.test/")
    foreign.get_by_role("link").click()
    foreign.wait_for_url(open_page.address)
    assert foreign.evaluate("document.documentElement.lang") == "ja"
    stop.click()
    expect(page.locator(".operation")).to_have_count(1)
    assert [path for _method, path, _body in service.received] == ["/api/v1/servers/gaa50000/wine/stop"]


def test_the_cookie_is_secure_behind_a_https_portal() -> None:
    app = create_app(load({"AIHUB_CONSOLE_PORTAL_URL": "https://portal.example.org"}))
    assert "Secure" in app.test_client().get("/").headers["Set-Cookie"]


def test_a_page_may_run_nothing_but_its_own_files(app: Flask) -> None:
    answer = app.test_client().get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    html = answer.get_data(as_text=True)
    assert "<script>" not in html
    assert "style=" not in html
    assert "onclick" not in html


def test_no_password_manager_fills_in_the_portals_password(app: Flask) -> None:
    """Its log-in may have the console's own origin; what stands in such a field is sent to the service as a storage key."""
    inputs = re.findall(r"<input[^>]*>", app.test_client().get("/").get_data(as_text=True))
    texts = [each for each in inputs if 'class="form-control"' in each]
    assert len(texts) > 6
    for each in texts:
        assert all(f" {word}" in each for word in ("data-1p-ignore", "data-bwignore", 'data-lpignore="true"')), each
        assert f'autocomplete="{"new-password" if "password" in each.split("autocomplete")[0] else "off"}"' in each


def test_a_large_request_is_refused(caller: Caller) -> None:
    answer = caller.send("POST", "/servers", {"env_name": "x" * 100_000})
    assert answer.status_code == 413
    assert answer.json["cure"]


def test_no_secret_in_page_answers_or_log(caller: Caller, service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service.add("gaa50000", "wine")
    form = {
        "group_name": "gaa50000",
        "env_name": "other",
        "cloud_storage_bucket_name": "bucket",
        "cloud_storage_accesskey_ID": "AKIA",
        "cloud_storage_secret_accesskey": "very-secret-key",
    }
    said = [
        caller.send("POST", "/servers", form),
        caller.send("POST", "/servers", form | {"env_name": "Bad Name"}),
        caller.get("/"),
        caller.get("/api/state"),
    ]
    assert all("very-secret-key" not in each.get_data(as_text=True) for each in said)
    assert "very-secret-key" not in caplog.text
    assert any("very-secret-key" in str(body) for _method, _path, body in service.received)
