"""A request that takes its time, never ends, or never comes to the console: what the page says, and that it goes on asking."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request
from playwright.sync_api import Page, expect

from tests.console.conftest import Opener
from tests.console.fake_service import FakeService
from tests.console.form import row

pytestmark = pytest.mark.browser


@pytest.fixture
def answers(app: Flask) -> Iterator[threading.Event]:
    """While it is not set, the console leaves the page's requests unanswered."""
    event = threading.Event()
    event.set()

    def hang() -> None:
        if request.path.startswith("/api/"):
            event.wait(120)

    app.before_request(hang)
    yield event
    event.set()


def page_with_our_clock(open_page: Opener, **options: str) -> Page:
    """The list is there; the page's timers, this bound's among them, are ours to move."""
    page = open_page(**options)
    page.clock.install()
    page.reload()
    expect(row(page, "wine")).to_be_visible()
    return page


@pytest.mark.parametrize(
    ("locale", "said"),
    [
        ("en-US", "The console does not answer: nothing came within 30 seconds.Check your connection and reload the page; if it goes on"),
        ("ja-JP", "コンソールが応答しません: 30 秒待っても応答がありません。ネットワーク接続を確認して"),
    ],
)
def test_the_list_is_asked_for_again(service: FakeService, answers: threading.Event, open_page: Opener, locale: str, said: str) -> None:
    service.add("gaa50000", "wine")
    page = page_with_our_clock(open_page, locale=locale)
    answers.clear()
    with page.expect_request("**/api/me"):
        page.get_by_role("button", name="Service List Update").click()
    page.clock.fast_forward(30_000)
    lost = page.locator('[data-banner="lost"]')
    expect(lost).to_contain_text(said)
    service.add("gaa50000", "new")
    answers.set()
    page.clock.fast_forward(10_000)
    expect(row(page, "new")).to_be_visible()
    expect(lost).to_have_count(0)


def test_a_change_may_have_been_made(service: FakeService, answers: threading.Event, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    service.paused = True
    page = page_with_our_clock(open_page)
    answers.clear()
    with page.expect_request("**/wine/stop"):
        page.get_by_role("button", name="Stop").click()
    page.clock.fast_forward(30_000)
    expect(page.locator("tr.notes .alert-danger")).to_contain_text("What you asked for may still be done: look at the list")
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    answers.set()
    page.clock.fast_forward(20_000)
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()  # the list shows that it is under way
    assert [path for _method, path, _body in service.received] == ["/api/v1/servers/gaa50000/wine/stop"]


def test_a_press_that_waits_shows_it_and_asks_only_once(service: FakeService, answers: threading.Event, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    service.paused = True
    page = open_page()
    stop = row(page, "wine").get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    answers.clear()
    with page.expect_request("**/wine/stop"):
        stop.click()
    expect(stop).to_have_attribute("aria-busy", "true")
    expect(stop).to_be_focused()
    assert stop.evaluate("each => getComputedStyle(each, '::after').borderTopStyle") == "solid"
    stop.press("Enter")
    answers.set()
    expect(stop).to_be_disabled()
    expect(stop).not_to_have_attribute("aria-busy", "true")
    assert [path for _method, path, _body in service.received] == ["/api/v1/servers/gaa50000/wine/stop"]


@pytest.mark.parametrize(
    "portal",
    [{"status": 302, "headers": {"Location": "https://login.example.org/"}}, {"status": 401, "body": "<h1>Unauthorized</h1>"}],
    ids=["led to the login", "refused"],
)
def test_an_ended_session_of_the_portal_is_named(service: FakeService, open_page: Opener, portal: dict[str, Any]) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    page.route("**/api/**", lambda route: route.fulfill(**portal))
    row(page, "wine").get_by_role("button", name="Stop").click()
    refused = page.locator("tr.notes .alert-danger")
    expect(refused).to_contain_text("Your portal session has ended, so nothing was asked of the service.")
    expect(refused).to_contain_text("Reload the page, and log in again if the portal asks you to.")
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator('[data-banner="lost"]')).to_contain_text("Your portal session has ended")
    page.unroute("**/api/**")
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator('[data-banner="lost"]')).to_have_count(0)
    assert service.received == []


@pytest.mark.parametrize("gateway", [None, {"status": 502, "body": "<h1>Proxy Error</h1>"}], ids=["cut off", "the portal gave up"])
def test_a_change_whose_answer_is_lost_may_have_been_made(service: FakeService, open_page: Opener, gateway: dict[str, Any] | None) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.route("**/wine/stop", lambda route: route.fulfill(**gateway) if gateway else route.abort())
    row(page, "wine").get_by_role("button", name="Stop").click()
    expect(page.locator("tr.notes .alert-danger")).to_contain_text("What you asked for may still be done: look at the list")


def test_a_page_that_comes_in_part_says_so(open_page: Opener) -> None:
    page = open_page()
    notice = page.get_by_text("A part of this page did not load: reload the page")
    expect(page.get_by_text("No tracking server yet")).to_be_visible()
    expect(notice).to_be_hidden()
    page.route("**/js/tokens.js", lambda route: route.abort())
    page.reload()
    expect(notice).to_be_visible()
