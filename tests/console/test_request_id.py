"""One id for each request: from the browser's side through the console to the service, in the console's log, and beside an error."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import expect

from tests.console.conftest import VISIT, Caller, Opener
from tests.console.fake_service import FakeService
from tests.console.form import FORM

Records = list[logging.LogRecord]
MADE = re.compile(r"[0-9a-f]{16}")


@pytest.fixture
def logged(app: Flask) -> Iterator[Records]:
    """What the console itself says; the fake service's own web server talks too."""
    found: Records = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    app.logger.addHandler(handler)
    yield found
    app.logger.removeHandler(handler)


def said(records: Records) -> list[str]:
    return [record.getMessage() for record in records]


def test_it_goes_through_to_the_service_and_back(caller: Caller, service: FakeService, logged: Records) -> None:
    answer = caller.send("POST", "/servers", FORM, **{"X-Request-Id": "walk-1"})
    assert (answer.status_code, answer.headers["X-Request-Id"], answer.json["request_id"]) == (202, "walk-1", "walk-1")
    assert service.operations[answer.json["id"]]["request_id"] == "walk-1"
    assert said(logged) == ["POST /api/servers 202 request=walk-1"]


def test_without_one_it_is_made_anew_for_each_request(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    made = [caller.send("POST", f"/servers/gaa50000/wine/{change}").headers["X-Request-Id"] for change in ("stop", "start")]
    assert len(set(made)) == 2
    assert all(map(MADE.fullmatch, made))
    assert [each["request_id"] for each in service.operations.values()] == made


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "x" * 10240, "'\"<b>", "a\tb", "é"])
def test_a_hostile_one_is_replaced(caller: Caller, logged: Records, sent: str) -> None:
    answer = caller.send("POST", "/servers", FORM, **{"X-Request-Id": sent})
    assert MADE.fullmatch(answer.headers["X-Request-Id"])
    assert said(logged) == [f"POST /api/servers 202 request={answer.headers['X-Request-Id']}"]


def test_a_failure_has_it_in_the_answer_and_in_the_log(caller: Caller, service: FakeService, logged: Records) -> None:
    wrong = caller.send("POST", "/servers", {}, **{"X-Request-Id": "walk-2"})
    assert (wrong.status_code, wrong.json["request_id"]) == (422, "walk-2")
    service.stop()
    gone = caller.get("/api/me", headers={"X-Request-Id": "walk-3"})
    assert (gone.status_code, gone.json["request_id"]) == (503, "walk-3")
    assert caller.get("/nothing/here").status_code == 404
    assert said(logged)[0] == "POST /api/servers 422 request=walk-2"
    assert [message.endswith(" request=walk-3") for message in said(logged)[1:3]] == [True, True]
    assert said(logged)[2].startswith("GET /api/me 503")
    assert [record.levelname for record in logged] == ["INFO", "WARNING", "WARNING", "INFO"]


def test_a_traceback_has_it_too(app: Flask, logged: Records) -> None:
    def broken() -> str:
        raise LookupError("nobody foresaw this")

    app.add_url_rule("/broken", "broken", broken)
    answer = app.test_client().get("/broken", headers={"X-Request-Id": "walk-4"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "walk-4")
    (record,) = [record for record in logged if record.exc_info]
    assert record.getMessage() == "Exception on /broken [GET] request=walk-4"


def test_reading_is_not_logged_and_a_path_makes_no_line_of_its_own(caller: Caller, logged: Records) -> None:
    assert caller.get("/api/state").status_code == 200
    assert said(logged) == []
    caller.get("/api/x%0a2026-01-01 forged")
    (line,) = said(logged)
    assert line.startswith("GET /api/x\\n2026-01-01 forged 404 request=")


def test_open_says_it_where_it_fails(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    service.stop()
    answer = caller.get("/open/gaa50000/wine", headers={**VISIT, "X-Request-Id": "walk-5"})
    assert answer.status_code == 503
    assert "<code>walk-5</code>" in answer.get_data(as_text=True)


@pytest.mark.browser
def test_the_page_shows_it_small_beside_an_error_and_copies_it(open_page: Opener, service: FakeService) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    for name, value in FORM.items():
        if name not in {"group_name", "credentials"}:
            page.locator(f"#create-form [name={name}]").fill(service.wrong_secret if "secret" in name else value)
    page.locator("#create-form [name=group_name]").select_option("gaa50000")
    page.locator("#create-button").click()
    shown = page.locator("#operations .request-id")
    expect(shown).to_contain_text("Request id for the admins:")
    (operation,) = service.operations.values()
    assert shown.locator("code").text_content() == operation["request_id"]
    shown.get_by_role("button").click()
    assert page.evaluate("navigator.clipboard.readText()") == operation["request_id"]
    assert open_page.complaints == []
