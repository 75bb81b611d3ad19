"""What others do at the same time, as the page tells it: whose it is, and that what it shows is not there any more."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Opener
from tests.console.fake_service import FakeService

pytestmark = pytest.mark.browser


def test_what_another_member_asked_for_is_told_as_theirs(service: FakeService, open_page: Opener) -> None:
    """It is in every member's page while it is under way, and so is how it fails."""
    service.paused = True
    own, theirs = (service.begin("storage", service.add("gaa50000", name)) for name in ("wine", "speech"))
    theirs["requested_by"] = "bob"
    page = open_page()
    expect(page.locator(f"[data-id={own['id']}] summary")).to_contain_text("Change the key · gaa50000 / wine")
    expect(page.locator(f"[data-id={theirs['id']}] summary")).to_contain_text("Change the key (asked for by bob) · gaa50000 / speech")
    theirs.update(state="failed", error={"code": "storage_secret_wrong", "params": {"access_key_id": "AKIABOBS"}})
    service.servers["gaa50000/speech"]["operation"] = None
    page.get_by_role("button", name="Service List Update").click()
    notes = page.locator(f"tr.notes[data-id={theirs['server_id']}]")
    expect(notes).to_contain_text("Change the key (asked for by bob): The secret access key does not belong to the access key AKIABOBS")


def test_a_dialog_that_was_open_meanwhile_deletes_no_other_server_of_that_name(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.get_by_role("button", name="Delete", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("wine")
    service.add("gaa50000", "wine")
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(dialog).to_contain_text("is a new one by now: the one that you meant was deleted")
    assert service.servers["gaa50000/wine"]["status"] == "running"
