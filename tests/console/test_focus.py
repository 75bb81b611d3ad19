"""Who works by keyboard, or is read the page to, keeps the place: whatever is drawn anew, rests, closes or goes meanwhile."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.conftest import Opener
from tests.console.fake_service import NOBODY, FakeService, stamp
from tests.console.form import row

pytestmark = pytest.mark.browser
LEASE = {"id": "x", "user": "carol", "until": "2026-11-24T10:00:00+00:00", "at_end": "keep", "note": "job 17"}
LOG = {"code": "port_taken", "params": {"port": 21003}, "log": [f"line {number}" for number in range(200)]}


def look(page: Page) -> None:
    """As the page does by itself, seconds later: without a press, which would take the focus."""
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")


def in_row(page: Page, server: dict[str, Any]) -> Locator:
    return page.locator(f'tr[data-id="{server["id"]}"] :focus')


def test_after_a_dialog_the_focus_is_in_the_row_whose_button_rests(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "other")
    server = service.add("gaa50000", "wine")
    service.paused = True
    page = open_page()
    delete = row(page, "wine").get_by_role("button", name="Delete")
    delete.focus()
    page.keyboard.press("Enter")
    page.keyboard.type("wine")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(delete).to_be_disabled()
    expect(in_row(page, server)).to_have_count(1)


def test_after_a_dialog_whose_server_is_gone_it_is_at_the_list(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "other")
    service.add("gaa50000", "wine")
    page = open_page()
    row(page, "wine").get_by_role("button", name="Delete").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    del service.servers["gaa50000/wine"]  # purged
    look(page)
    expect(row(page, "wine")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("#service-list")).to_be_focused()


def test_a_link_that_rests_keeps_it_in_its_row(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    page = open_page()
    row(page, "wine").get_by_role("link", name="Open").focus()
    server["status"] = "stopped"
    look(page)
    expect(row(page, "wine")).to_have_attribute("data-status", "stopped")
    expect(in_row(page, server)).to_have_count(1)


def test_after_reset_it_is_at_the_heading(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator('.operation[data-state="succeeded"]')).to_have_count(1)
    page.get_by_role("button", name="Reset").press("Enter")
    expect(page.locator(".operation")).to_have_count(0)
    expect(page.get_by_role("heading", name="Operational status for requests")).to_be_focused()


def test_a_key_that_is_held_does_not_answer_what_it_opens(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", leases=[LEASE])
    page = open_page()
    stop = row(page, "wine").get_by_role("button", name="Stop")
    stop.focus()
    for _repeat in range(4):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("carol, job 17")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(stop).to_be_focused()
    assert service.received == []


def test_what_changes_in_the_list_does_not_move_the_page(service: FakeService, open_page: Opener) -> None:
    """Whoever pressed Stop and went down to the steps is not taken back up by each of them."""
    for number in range(12):
        service.add("gaa50000", f"wine{number:02}")
    service.paused = True
    page = open_page()
    row(page, "wine00").get_by_role("button", name="Stop").click()
    expect(row(page, "wine00")).to_contain_text("Stop: Stop the server")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    before = page.evaluate("scrollY")
    assert before > page.locator("tr.server").first.evaluate("each => each.offsetTop + each.offsetHeight + 100")
    service.paused = False
    look(page)
    expect(row(page, "wine00")).to_have_attribute("data-status", "stopped")
    expect(in_row(page, service.servers["gaa50000/wine00"])).to_have_count(1)
    assert page.evaluate("scrollY") == before


def test_what_is_said_while_a_dialog_is_open_is_said_in_it(service: FakeService, open_page: Opener) -> None:
    """The page behind it is inert: a screen reader tells nothing of it."""
    service.add("gaa50000", "wine")
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Lines for a job").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.locator("[aria-live=polite]")).to_have_text("Copied")
    assert page.locator("#spoken").text_content() == ""


def test_what_was_wrong_with_a_field_is_not_read_out_once_it_is_written_anew(open_page: Opener) -> None:
    page = open_page()
    name = page.get_by_label("env_name")
    page.get_by_role("button", name="Create Service").click()
    expect(name).to_have_accessible_description(re.compile("Fill in this field"))
    name.fill("wine")
    expect(name).to_have_accessible_description(re.compile(r"^Name of the server: .* digit\.$"))


def test_who_reads_a_log_is_not_disturbed_by_each_look(service: FakeService, open_page: Opener) -> None:
    service.paused = True
    failed = service.begin("start", service.add("gaa50000", "wine", "stopped", users=NOBODY))
    page = open_page()
    box = page.locator(f'.operation[data-id="{failed["id"]}"]')
    expect(box).to_be_visible()
    failed.update(state="failed", finished_at=stamp(), error=LOG)
    service.servers["gaa50000/wine"]["operation"] = None
    going_on = service.begin("start", service.add("gaa50000", "other", "stopped"))
    look(page)
    expect(box).to_have_attribute("data-state", "failed")
    if box.get_attribute("open") is None:
        box.locator("summary").first.click()
    box.get_by_text("Last lines of the log").click()
    log = box.locator("pre")
    log.evaluate("each => { each.scrollTop = 100; each.focus(); getSelection().selectAllChildren(each); }")
    service.advance(going_on)
    look(page)
    expect(page.locator(f'.operation[data-id="{going_on["id"]}"] li[data-state="running"]')).to_have_count(1)
    expect(log).to_be_focused()
    assert log.evaluate("each => each.scrollTop") == 100
    assert "line 199" in page.evaluate("getSelection().toString()")


def test_an_open_log_in_the_list_stays_open(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", "failed", reason=LOG)
    page = open_page()
    fold = page.locator("tr.notes").get_by_text("Last lines of the log")
    fold.click()
    server["users"] = {"names": ["bob"], "updated_at": stamp()}
    look(page)
    expect(page.locator("tr.notes summary").first).to_contain_text("bob")
    expect(page.locator("tr.notes pre")).to_be_visible()
    expect(fold).to_be_focused()
