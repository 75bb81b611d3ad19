"""Answers and presses that cross: what is under way is not undone, done twice, or lost by what comes between."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Error, Page, Route, expect

from tests.console.conftest import Opener
from tests.console.fake_service import NOBODY, FakeService, stamp
from tests.console.form import fill, row
from tests.support.box import until

pytestmark = pytest.mark.browser
Hold = Callable[[Page, str], Callable[[], Route]]
LOST = {"code": "service_unreachable", "detail": "The service cannot be reached: no answer.", "cure": "Look at the list first."}


@pytest.fixture
def hold(open_page: Opener) -> Iterator[Hold]:
    """Holds a page's next request to an address, and gives it once it is there; those after it go through."""
    waiting: list[Route] = []

    def begin(page: Page, url: str) -> Callable[[], Route]:
        mine: list[Route] = []

        def handle(route: Route) -> None:
            if mine:
                route.continue_()
            else:
                mine.append(route)
                waiting.append(route)

        def given() -> Route:
            until(lambda: page.evaluate("true") and mine, what="the page's request")
            return mine[0]

        page.route(url, handle)
        return given

    yield begin
    for route in waiting:
        with contextlib.suppress(Error):  # it was answered, unless the test failed before: the page could not be closed then
            route.abort()


_WATCH = """name => {
  window.rested = true;
  const watch = () => { window.rested &&= document.querySelector(`[data-key="${name}"]`).disabled; };
  new MutationObserver(watch).observe(document.getElementById("servers"), { childList: true, subtree: true });
}"""


def test_a_look_that_tells_of_before_a_press_wakes_no_button(service: FakeService, open_page: Opener, hold: Hold) -> None:
    server = service.add("gaa50000", "wine")
    service.paused = True
    page = open_page()
    stop = row(page, "wine").get_by_role("button", name="Stop")
    expect(stop).to_be_enabled()
    request = hold(page, "**/api/state*")
    page.get_by_role("button", name="Service List Update").click()
    before = request()
    answer = before.fetch()
    stop.click()
    expect(stop).to_be_disabled()
    page.evaluate(_WATCH, f"{server['id']}-stop")
    before.fulfill(response=answer)
    expect(page.locator("#spoken")).to_contain_text("The list was updated.")
    service.paused = False
    expect(row(page, "wine")).to_have_attribute("data-status", "stopped")
    assert page.evaluate("rested")


def test_a_press_whose_row_is_drawn_anew_is_still_one(service: FakeService, open_page: Opener, hold: Hold) -> None:
    server = service.add("gaa50000", "wine")
    service.paused = True
    page = open_page()
    stop = row(page, "wine").get_by_role("button", name="Stop")
    expect(stop).to_be_enabled()
    request = hold(page, "**/wine/stop")
    stop.click()
    request()
    server["users"] = {"names": ["bob"], "updated_at": stamp()}
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("tr.notes summary")).to_contain_text("bob")
    expect(stop).to_have_attribute("aria-busy", "true")
    expect(stop).to_be_focused()
    stop.press("Enter")
    assert page.evaluate("true")
    assert service.received == []
    request().fulfill(status=503, json=LOST)
    expect(page.locator("tr.notes .alert-danger")).to_contain_text("cannot be reached")
    expect(stop).not_to_have_attribute("aria-busy", "true")
    stop.press("Enter")
    expect(stop).to_be_disabled()


def test_what_failed_after_its_dialog_was_closed_is_told_at_the_server(service: FakeService, open_page: Opener, hold: Hold) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    request = hold(page, "**/api/servers/gaa50000/wine")
    page.get_by_role("button", name="Delete").click()
    page.keyboard.type("wine")
    page.keyboard.press("Enter")
    asked = request()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    asked.fulfill(status=503, json=LOST)
    expect(page.locator("tr.notes .alert-danger")).to_contain_text("The service cannot be reached: no answer.Look at the list first.")
    expect(page.locator("#spoken")).to_contain_text("Look at the list first.")


def test_no_dialog_opens_over_another_one(service: FakeService, open_page: Opener, hold: Hold) -> None:
    """What is being typed in the first would press the second's button."""
    service.add("gaa50000", "wine", users=NOBODY)
    service.add("gaa50000", "zother")
    page = open_page()
    request = hold(page, "**/wine/auth")
    row(page, "wine").get_by_role("button", name="Auth Info Registration").click()
    asked = request()
    row(page, "zother").get_by_role("button", name="Delete").click()
    typed = page.get_by_role("dialog").get_by_role("textbox")
    typed.fill("zoth")
    asked.continue_()
    expect(page.locator("tr.notes .alert-danger")).to_contain_text("There is no file")
    expect(page.get_by_role("dialog")).to_have_count(1)
    expect(typed).to_be_focused()


def test_ones_own_request_stays_however_much_others_ask_for(service: FakeService, open_page: Opener) -> None:
    service.paused = True
    page = open_page()
    fill(page)
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator(".operation")).to_have_count(1)
    (own,) = service.operations
    for number in range(7):
        service.begin("stop", service.add("gaa50001", f"speech{number}"))["requested_by"] = "bob"
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator(".operation")).to_have_count(6)
    expect(page.locator(f'.operation[data-id="{own}"]')).to_be_visible()
    service.paused = False
    expect(page.locator(f'.operation[data-id="{own}"] .conclusion')).to_have_text("Service created")


def test_the_next_day_a_time_has_its_date(service: FakeService, open_page: Opener) -> None:
    """A page stays open for days, and a server's row is drawn anew only where something changed."""
    service.add("gaa50000", "wine", status_since=stamp())
    page = open_page()
    page.clock.install()
    page.reload()
    expect(row(page, "wine")).to_contain_text(re.compile(r"since \d+:\d\d"))
    page.clock.fast_forward(86_400_000)
    expect(row(page, "wine")).to_contain_text(re.compile(r"since \w+ \d+, 20\d\d"))
