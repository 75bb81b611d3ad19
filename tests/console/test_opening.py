"""**Open**: a click in the list signs in to the server, with no ticket in any address."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, Route, expect

from tests.console.conftest import VISIT, Caller, Opener
from tests.console.fake_service import NOBODY, FakeService

PATH = "/open/gaa50000/wine"


def tickets(service: FakeService) -> int:
    return sum(path.endswith("/tickets") for _method, path, _body in service.received)


def test_a_visit_gets_a_form_that_posts_the_ticket_to_the_portal(service: FakeService, caller: Caller) -> None:
    server = service.add("gaa50000", "wine")
    answer = caller.get(PATH, headers=VISIT)
    text = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert f'action="{server["outside_url"]}-/sign-in"' in text
    assert re.search(r'name="ticket" value="t1\.ticket-\d+\.mac"', text)
    assert "form-action 'self' https://portal.example.org;" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "strict-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "noopener-allow-popups"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**VISIT, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {**VISIT, "Sec-Fetch-Dest": "iframe"},
        {**VISIT, "Sec-Fetch-Site": "cross-site"},
        {**VISIT, "Sec-Fetch-Site": "same-site"},
        {**VISIT, "Sec-Purpose": "prefetch"},
        {**VISIT, "Service-Worker-Navigation-Preload": "true"},
    ],
)
def test_whatever_a_script_could_read_has_no_ticket(service: FakeService, caller: Caller, headers: dict[str, str]) -> None:
    service.add("gaa50000", "wine")
    answer = caller.get(PATH, headers=headers)
    assert answer.status_code == 200
    assert "t1.ticket" not in answer.get_data(as_text=True)
    assert "csrf_token" in answer.get_data(as_text=True)
    assert tickets(service) == 0


def post(caller: Caller, **headers: str) -> Any:
    usual = {"Origin": "http://localhost", **VISIT}
    return caller.client.post(PATH, data={"csrf_token": caller.token}, headers={**usual, **headers})


def test_the_button_does_it_after_a_click_but_no_script(service: FakeService, caller: Caller) -> None:
    service.add("gaa50000", "wine")
    assert "t1.ticket" in post(caller).get_data(as_text=True)
    assert post(caller, **{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}).status_code == 403
    assert post(caller, Origin="https://evil.example.org").status_code == 403
    assert caller.client.post(PATH, headers={"Origin": "http://localhost", **VISIT}).status_code == 400
    assert tickets(service) == 1


def test_why_not_is_a_page_with_the_cure(service: FakeService, caller: Caller) -> None:
    server = service.add("gaa50000", "wine", status="stopped")
    answer = caller.get(PATH, headers=VISIT)
    assert answer.status_code == 409
    assert "does not run now" in answer.get_data(as_text=True)
    assert caller.get("/open/gaa50000/none", headers=VISIT).status_code == 404
    server |= {"status": "running", "users": NOBODY}
    answer = caller.get(PATH, headers=VISIT)
    assert answer.status_code == 409
    assert "Register Auth Info first" in answer.get_data(as_text=True)


def test_a_page_that_is_refused_says_so_as_a_page(service: FakeService, caller: Caller) -> None:
    service.add("gaa50000", "wine")
    answer = post(Caller(caller.client, "of another session"))
    assert (answer.status_code, answer.mimetype) == (400, "text/html")
    assert "Reload the console&#39;s page" in answer.get_data(as_text=True)


def test_a_page_promises_no_retry_that_it_does_not_make(service: FakeService, caller: Caller) -> None:
    service.stop()
    for answer in (caller.get(PATH, headers=VISIT), post(caller)):
        assert answer.status_code == 503
        assert "Try again; if it goes on, tell the admins." in answer.get_data(as_text=True)


def test_one_click_or_enter_opens_a_new_tab_and_posts(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    posted: list[tuple[str, str | None]] = []

    def portal(route: Route) -> None:
        posted.append((route.request.url, route.request.post_data))
        route.fulfill(body="<h1>MLflow</h1>", content_type="text/html")

    page = open_page()
    page.context.route("https://portal.example.org/**", portal)
    link = page.get_by_role("link", name="Open").first
    expect(link).to_be_visible()
    for press in (link.click, lambda: (link.focus(), page.keyboard.press("Enter"))):
        with page.context.expect_page() as opened:
            press()
        tab: Page = opened.value
        expect(tab.get_by_role("heading", name="MLflow")).to_be_visible()
        assert tab.url == f"{server['outside_url']}-/sign-in"
        tab.close()
    assert [url for url, _data in posted] == [f"{server['outside_url']}-/sign-in"] * 2
    sent = [parse_qs(data or "")["ticket"] for _url, data in posted]
    assert len({text for (text,) in sent}) == 2
    assert open_page.complaints == []


def test_without_a_portal_open_is_the_inside_address(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", outside_url=None)
    page = open_page()
    expect(page.get_by_role("link", name="Open").first).to_have_attribute("href", server["inside_url"])


def test_the_way_out_stands_in_the_servers_details(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    service.add("gaa50000", "inside", outside_url=None)
    service.add("gaa50000", "gone", "deleted")  # nothing answers there
    page = open_page()
    expect(page.locator("details.more summary")).to_have_count(3)
    for summary in page.locator("details.more summary").all():
        summary.click()
    links = page.get_by_role("link", name="until when, and sign out")
    expect(links).to_have_count(1)
    expect(links).to_have_attribute("href", f"{server['outside_url']}-/sign-in")
