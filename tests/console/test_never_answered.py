"""A request that never ends: the page gives it up, says so, and goes on asking."""

from __future__ import annotations

import threading
from collections.abc import Iterator

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
        ("ja-JP", "コンソールが応答しません: 30秒待っても応答がありません。ネットワーク接続を確認して"),
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
    expect(page.locator('[data-banner="refused"]')).to_contain_text("What you asked for may still be done: look at the list")
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    answers.set()
    page.clock.fast_forward(20_000)
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()  # the list shows that it is under way
    assert [path for _method, path, _body in service.received] == ["/api/v1/servers/gaa50000/wine/stop"]
