"""Everything is done without a mouse, and the place where one is can always be seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Opener
from tests.console.fake_service import NOBODY, FakeService, stamp
from tests.console.form import focused, row, tab_to

pytestmark = pytest.mark.browser


def row_of_the_focus(page: Page) -> str | None:
    """The id of the server in whose row it is."""
    found: str | None = page.evaluate("document.activeElement.closest('tr')?.dataset.id")
    return found


def test_stop_delete_and_create(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    tab_to(page, "Skip to the list")
    tab_to(page, "Service List Update")
    tab_to(page, "Delete")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("textbox")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    tab_to(page, "Stop", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(row(page, "wine")).to_have_attribute("data-status", "stopped")
    assert row_of_the_focus(page) == server["id"]
    tab_to(page, "group_name")
    page.keyboard.type("gaa50001")
    for name, value in [("env_name", "by_keys"), ("cloud_storage_bucket_name", "bucket")]:
        page.keyboard.press("Tab")
        assert focused(page) == name
        page.keyboard.type(value)
    page.keyboard.press("Tab")
    for value in ("AKIA", "secret"):
        page.keyboard.press("Tab")
        page.keyboard.type(value)
    page.keyboard.press("Enter")
    expect(page.locator(".conclusion").first).to_contain_text("Service created")
    assert "gaa50001/by_keys" in service.servers


def test_create_with_a_profile(service: FakeService, open_page: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text("".join(f"[{name}]\naws_access_key_id = AKIA{name}\naws_secret_access_key = s3cr3t\n" for name in ("default", "lab")))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    page = open_page()
    expect(page.get_by_text("No tracking server yet")).to_be_visible()
    tab_to(page, "group_name")
    page.keyboard.type("gaa50000")
    for value in ("by_keys", "bucket"):
        page.keyboard.press("Tab")
        page.keyboard.type(value)
    tab_to(page, "credentials")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Read credentials")).to_be_checked()
    expect(page.locator("#profile option")).to_have_count(2)
    tab_to(page, "profile")
    page.keyboard.type("lab")
    tab_to(page, "Create Service")
    page.keyboard.press("Enter")
    expect(page.locator(".conclusion").first).to_contain_text("Service created")
    assert service.received[0][2]["access_key_id"] == "AKIAlab"


def test_auth_info_registration_to_its_end(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", users=NOBODY)
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    tab_to(page, "Auth Info Registration")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Create the file for me")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("with the user alice and a new password")
    expect(dialog.get_by_role("button", name="Auth Info Registration")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    update = page.get_by_role("button", name="Update Auth Info")
    expect(update).to_be_enabled()
    assert row_of_the_focus(page) == server["id"]
    assert server["users"]["names"] == ["alice"]
    update.focus()
    page.keyboard.press("Enter")
    expect(page.locator('.operation[data-state="succeeded"]')).to_have_count(2)
    expect(page.locator(f'tr[data-id="{server["id"]}"] :focus')).to_have_count(1)


def test_restore(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", "deleted", deletion={"deleted_at": stamp(), "restorable_until": stamp(), "kept": []})
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    tab_to(page, "Restore")
    page.keyboard.press("Enter")
    expect(row(page, "wine")).to_have_attribute("data-status", "running")
    assert row_of_the_focus(page) == server["id"]


def test_the_lines_of_an_export(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    expect(row(page, "wine")).to_be_visible()
    tab_to(page, "Export model")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Copy")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.locator("[aria-live=polite]")).to_have_text("Copied")
    assert "mlwf_export_model --model-registry-url" in page.evaluate("navigator.clipboard.readText()")
    seen = {tab(page) for _each in range(12)}
    assert {"Copy", "Close"} <= seen, "both buttons, and nothing of the page behind"
    assert not seen & {"Export model", "Service List Update", "env_name"}
    tab_to(page, "Close")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Export model")).to_be_focused()


def tab(page: Page) -> str:
    page.keyboard.press("Tab")
    return focused(page)
