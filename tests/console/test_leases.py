"""Who needs a server stands with it in the list."""

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Opener
from tests.console.fake_service import FakeService
from tests.console.form import row


@pytest.mark.browser
def test_a_lease_says_who_needs_the_server_and_what_comes_then(open_page: Opener, service: FakeService) -> None:
    lease = {"id": "x", "user": "alice", "until": "2026-11-24T10:00:00+00:00", "created_at": "2026-11-24T09:00:00+00:00"}
    service.add("gaa50000", "wine", leases=[{**lease, "at_end": "stop", "note": "job <b>17</b>"}])
    page = open_page()
    page.locator("details.more summary").click()
    expect(page.get_by_text("alice, job <b>17</b>; then it is stopped, unless others need it")).to_be_visible()
    assert open_page.complaints == []


@pytest.mark.browser
def test_stop_and_delete_say_first_who_needs_the_server(open_page: Opener, service: FakeService) -> None:
    lease = {"id": "x", "user": "carol", "until": "2026-11-24T10:00:00+00:00", "created_at": "2026-11-24T09:00:00+00:00"}
    service.add("gaa50000", "wine", leases=[{**lease, "at_end": "keep", "note": "job 17"}])
    page = open_page()
    stop = row(page, "wine").get_by_role("button", name="Stop")
    stop.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Stop gaa50000 / wine?")
    expect(dialog).to_contain_text("carol, job 17; then it is kept")
    page.keyboard.press("Escape")
    expect(stop).to_be_focused()
    assert service.received == []
    row(page, "wine").get_by_role("button", name="Delete").click()
    expect(dialog).to_contain_text("Needed until:")
    expect(dialog).to_contain_text("carol, job 17; then it is kept")
    page.keyboard.press("Escape")
    stop.click()
    dialog.get_by_role("button", name="Stop").click()
    expect(row(page, "wine")).to_have_attribute("data-status", "stopped")
    assert open_page.complaints == []
