"""The list tells at the server itself what goes on and what went wrong, and stays where the reader looks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Opener
from tests.console.fake_service import NOBODY, FakeService, stamp
from tests.console.form import fill, row

pytestmark = pytest.mark.browser


def look(page: Page) -> None:
    """At once what the page would ask for by itself, seconds later."""
    page.get_by_role("button", name="Service List Update").click()


def refuse_a_new_key(service: FakeService, page: Page) -> None:
    """The object store refuses a key that was given in the dialog: the page learns it when the dialog is long closed."""
    service.paused = True
    page.locator("details.menu summary").first.click()
    page.get_by_role("button", name="Change the key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("cloud_storage_accesskey_ID").fill("AKIANEW")
    dialog.get_by_label("cloud_storage_secret_accesskey").fill("wrong")
    dialog.get_by_role("button", name="Change the key").click()
    expect(dialog).to_have_count(0)
    (operation,) = service.operations.values()
    operation["steps"][0].update(state="failed", finished_at=stamp())
    operation.update(state="failed", finished_at=stamp(), error={"code": "storage_secret_wrong", "params": {"access_key_id": "AKIANEW"}})
    service.servers["gaa50000/wine"]["operation"] = None
    service.paused = False
    look(page)


def test_what_was_asked_in_vain_is_said_at_its_server(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    service.add("gaa50000", "zother")
    page = open_page()
    refuse_a_new_key(service, page)
    notes = page.locator(f'tr.notes[data-id="{service.servers["gaa50000/wine"]["id"]}"]')
    said = re.compile("Change the key: .* does not belong to the access key AKIANEW")
    expect(notes.locator(".alert-danger")).to_contain_text(said)
    expect(notes).to_contain_text("Type or choose the secret again.")
    expect(page.locator("tr.notes .alert-danger")).to_have_count(1)
    page.reload()
    expect(notes.locator(".alert-danger")).to_contain_text(said)
    notes.get_by_role("button", name="Close").click()
    expect(page.locator("tr.notes .alert-danger")).to_have_count(0)


def test_it_goes_when_something_else_was_asked_or_reset_is_pressed(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    refuse_a_new_key(service, page)
    alert = page.locator("tr.notes .alert-danger")
    expect(alert).to_be_visible()
    expect(page.locator('.operation[data-state="failed"] li[data-state="pending"] .visually-hidden')).to_have_text(["not begun: "] * 2)
    page.get_by_role("button", name="Reset").click()
    expect(alert).to_have_count(0)
    service.operations.clear()
    refuse_a_new_key(service, page)
    expect(alert).to_be_visible()
    row(page, "wine").get_by_role("button", name="Stop").click()
    expect(row(page, "wine")).to_have_attribute("data-status", "stopped")
    expect(alert).to_have_count(0)


def test_the_rows_below_stay_where_they_are_while_something_is_under_way(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "a-first")
    service.add("gaa50000", "below")
    service.paused = True
    page = open_page()
    expect(row(page, "below")).to_be_visible()
    before = row(page, "below").bounding_box()
    row(page, "a-first").get_by_role("button", name="Stop").click()
    expect(row(page, "a-first")).to_contain_text("Stop: Stop the server (1/1)")
    assert row(page, "below").bounding_box() == before


def test_many_users_are_counted_in_the_line_and_named_behind_it(service: FakeService, open_page: Opener) -> None:
    names = [f"user{number}" for number in range(40)]
    service.add("gaa50000", "wine", users={"names": names, "updated_at": stamp()})
    page = open_page()
    summary = page.locator("tr.notes summary")
    expect(summary).to_have_text("user0, user1, user2 and 37 more · MLflow 3.17.2 · s3://wine-models")
    summary.click()
    expect(page.locator("tr.notes dl")).to_contain_text(", ".join(names))


def test_the_form_is_a_press_away_from_a_long_list(service: FakeService, open_page: Opener) -> None:
    page = open_page()
    link = page.get_by_role("link", name="New tracking server")
    expect(page.get_by_text("No tracking server yet")).to_be_visible()
    expect(link).to_be_hidden()
    for number in range(8):
        service.add("gaa50000", f"wine{number}")
    look(page)
    link.click()
    expect(page.get_by_label("group_name")).to_be_in_viewport()


def test_a_dialog_with_lines_names_its_server(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", users=NOBODY)
    page = open_page()
    for name in ("Lines for a job", "Export model", "Create image", "Auth Info Registration"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("dialog", name=f"{name} · gaa50000 / wine")).to_be_visible()
        page.keyboard.press("Escape")


def test_what_is_refused_is_told_at_its_server_and_the_page_stays_where_it_is(service: FakeService, open_page: Opener) -> None:
    for number in range(12):
        service.add("gaa50000", f"wine{number:02}")
    page = open_page()
    stop = row(page, "wine11").get_by_role("button", name="Stop")
    stop.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    assert before > 0
    del service.servers["gaa50000/wine11"]
    stop.click()
    notes = page.locator("tr.notes .alert-danger")
    expect(notes).to_contain_text("There is no tracking server wine11")
    expect(page.locator("#spoken")).to_contain_text("There is no tracking server wine11")
    expect(stop).to_be_focused()
    assert page.evaluate("scrollY") == before
    notes.get_by_role("button", name="Close").click()
    expect(notes).to_have_count(0)


def test_a_warning_of_the_auth_file_is_told_at_its_server(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", users=NOBODY)
    file = Path(server["auth_file"])
    file.parent.mkdir(parents=True)
    file.write_text("{'user_name': 'alice', 'pass': 'a-long-password'}")
    file.chmod(0o644)
    page = open_page()
    page.get_by_role("button", name="Auth Info Registration").click()
    expect(page.locator("tr.notes .alert-warning")).to_contain_text("Everybody on the system can read")
    expect(page.get_by_role("button", name="Update Auth Info")).to_be_enabled()
    expect(page.locator("tr.notes .alert-warning")).to_contain_text("Run chmod o= on it")


_COUNT_READ_OUT = """() => {
  window.readOut = 0;
  const told = new MutationObserver(() => { window.readOut += 1; });
  told.observe(document.getElementById("matches"), { childList: true, subtree: true, characterData: true });
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_one_finds_a_server_among_many(service: FakeService, open_page: Opener, width: int) -> None:
    """Of 300 servers the page is fifty screens long, and twice as many on a phone."""
    for number in range(6):
        service.add("gaa50000", f"wine-{number}")
    page = open_page(width=width)
    field, shown = page.get_by_role("searchbox", name="Find a server"), page.locator("tr.server")
    expect(shown).to_have_count(6)
    expect(field).to_be_hidden()  # these are seen at once
    speech = service.add("gaa50001", "speech", "failed", users={"names": ["Bob"], "updated_at": stamp()})
    service.add("gaa50001", "wine-old", "deleted")
    look(page)
    expect(shown).to_have_count(8)
    for text, names in {
        "gaa50001": ["speech", "wine-old"],
        "WINE deleted": ["wine-old"],
        "ｗｉｎｅ－ｏｌｄ　gaa": ["wine-old"],  # noqa: RUF001
        "bob": ["speech"],
        f" {speech['inside_url']}#/experiments": ["speech"],
        "mlflow01": [],  # in every address
    }.items():
        field.fill(text)
        expect(shown.locator("strong")).to_have_text(names)
        expect(page.get_by_role("status").filter(has_text=f"{len(names)} of 8")).to_be_visible()
    nothing = page.get_by_text("No server matches “mlflow01”.")
    expect(nothing).to_be_visible()
    page.evaluate(_COUNT_READ_OUT)
    look(page)
    expect(page.locator("#spoken").get_by_text("The list was updated.")).to_have_count(2)
    assert page.evaluate("readOut") == 0, "it says the same"
    page.get_by_role("button", name="Show all").click()
    expect(shown).to_have_count(8)
    expect(field).to_be_focused()
    field.fill("mlflow01")
    service.servers.clear()
    look(page)
    expect(page.locator("#servers .empty")).to_be_visible()
    expect(nothing).to_be_hidden()  # there is none to be found, as the list says


def test_what_is_looked_for_stays_and_hides_nothing_new(service: FakeService, open_page: Opener) -> None:
    for number in range(8):
        service.add("gaa50000", f"wine-{number}")
    page = open_page()
    field, shown = page.get_by_role("searchbox", name="Find a server"), page.locator("tr.server")
    field.fill("wine-3")
    page.reload()
    expect(shown).to_have_count(1)
    expect(field).to_have_value("wine-3")
    row(page, "wine-3").get_by_role("button", name="Stop").focus()
    del service.servers["gaa50000/wine-3"]  # purged
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")  # as who comes back to the page, and presses nothing
    expect(shown).to_have_count(0)
    expect(field).to_be_focused()
    fill(page, "new-one")
    page.get_by_role("button", name="Create Service").click()
    expect(row(page, "new-one")).to_be_visible()
    expect(field).to_have_value("")


@pytest.mark.parametrize(("locale", "day"), [("en-GB", "14 December 2031"), ("en-US", "December 14, 2031"), ("ja-JP", "2031年12月14日")])
def test_a_day_is_written_as_its_reader_writes_it(service: FakeService, open_page: Opener, locale: str, day: str) -> None:
    until = "2031-12-13T16:00:00+00:00"  # in Tokyo, where the browser is, the next day has begun
    service.add("gaa50000", "wine", "deleted", deletion={"deleted_at": stamp(), "restorable_until": until, "kept": []})
    expect(row(open_page(locale=locale), "wine")).to_contain_text(day)
