"""What a server's menu offers now and then: another MLflow, the one from before, another size."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from backend.plans.labels import LABELS
from tests.console.conftest import Caller, Opener
from tests.console.fake_service import STEPS, FakeService, stamp

pytestmark = pytest.mark.browser
SERVER = "/api/v1/servers/gaa50000/wine"


def choose(page: Page, name: str) -> Locator:
    """Opens the menu of the only server and presses one of its buttons; the dialog."""
    page.locator("details.menu summary").click()
    page.locator(".menu-items").get_by_role("button", name=name, exact=True).click()
    return page.get_by_role("dialog")


def look(page: Page) -> None:
    """At once what the page would ask for by itself, seconds later."""
    page.get_by_role("button", name="Service List Update").click()


def offered(page: Page) -> list[str]:
    return page.locator(".menu-items button").all_inner_texts()


def test_an_upgrade_says_what_happens_shows_its_steps_and_can_be_rolled_back(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", mlflow_version="3.15.0", upgrades=["3.17.2", "3.16.0"])
    service.paused = True
    page = open_page()
    dialog = choose(page, "Upgrade MLflow")
    expect(dialog).to_contain_text("From MLflow 3.15.0 to:")
    expect(dialog.get_by_role("combobox")).to_be_focused()
    expect(dialog.get_by_role("combobox")).to_have_value("3.17.2")
    expect(dialog).to_contain_text("tried on a copy of the database; the server goes on meanwhile")
    expect(dialog).to_contain_text("If anything fails before that, MLflow 3.15.0 goes on serving.")
    expect(dialog).to_contain_text(re.compile(r"kept until \w+ \d+, 20\d\d: until then Roll back brings them back"))
    assert service.received == []
    dialog.get_by_role("button", name="Upgrade MLflow").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".operation summary")).to_contain_text("Upgrade MLflow · gaa50000 / wine")
    steps = page.locator(".steps li")
    expect(steps).to_have_count(len(STEPS["upgrade"]))
    expect(steps.nth(2)).to_contain_text(LABELS["try_version"])
    service.paused = False
    look(page)
    expect(page.locator(".conclusion")).to_contain_text("MLflow upgraded")
    expect(page.locator("tr.notes summary")).to_contain_text("MLflow 3.17.2")
    page.locator("tr.notes summary").click()
    expect(page.locator("tr.notes dl")).to_contain_text("MLflow 3.15.0, until")
    dialog = choose(page, "Roll back")
    expect(dialog).to_contain_text("goes back to MLflow 3.15.0 and to the database from before the change")
    expect(dialog).to_contain_text("set aside and not served")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.locator("tr.notes summary")).to_contain_text("MLflow 3.15.0")
    assert [each[:2] for each in service.received] == [("POST", f"{SERVER}/upgrade"), ("POST", f"{SERVER}/rollback")]
    assert service.received[0][2] == {"mlflow_version": "3.17.2"}
    assert open_page.complaints == []


def test_a_failed_upgrade_says_why_and_that_the_server_goes_on(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", mlflow_version="3.15.0", upgrades=["3.17.2"])
    service.paused = True
    page = open_page()
    choose(page, "Upgrade MLflow").get_by_role("button", name="Upgrade MLflow").click()
    expect(page.locator(".operation")).to_have_count(1)
    (operation,) = service.operations.values()
    operation["steps"][0].update(state="failed", finished_at=stamp())
    error = {"code": "version_unfit", "params": {"version": "3.17.2", "why": "no answer"}, "log": ["the last line"]}
    operation.update(state="failed", finished_at=stamp(), error=error)
    service.servers["gaa50000/wine"]["operation"] = None
    look(page)
    failed = page.locator('.operation[data-state="failed"]')
    expect(failed).to_contain_text("The server goes on as it was; tell the admins.")
    failed.get_by_text("Last lines of the log").click()
    expect(failed).to_contain_text("the last line")


def test_only_what_there_is_something_for_is_offered(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    page = open_page()
    page.locator("details.menu summary").click()
    assert offered(page) == ["Tokens", "Change the key", "Change the size"]
    server.update(upgrades=["9.0.0"], previous={"mlflow_version": "3.15.0", "until": stamp(timedelta(days=3))})
    look(page)
    expect(page.locator(".menu-items button")).to_have_text(["Tokens", "Change the key", "Change the size", "Upgrade MLflow", "Roll back"])


def test_a_size_is_chosen_by_what_it_stands_for(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    dialog = choose(page, "Change the size")
    expect(dialog.get_by_label("small: 1 GiB, 1 CPU, worker processes: 1")).to_be_checked()
    expect(dialog).to_contain_text("A running server is restarted")
    dialog.get_by_label("medium: 2 GiB, 2 CPU, worker processes: 2, with MLflow's GenAI jobs, with MLflow's AI gateway").check()
    dialog.get_by_role("button", name="Change the size").click()
    expect(page.locator(".conclusion")).to_contain_text("Size changed")
    assert service.received == [("PUT", f"{SERVER}/size", {"size": "medium"})]
    assert service.servers["gaa50000/wine"]["size"] == "medium"


def test_the_menu_goes_by_keyboard_and_closes_by_itself(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    summary, box = page.locator("details.menu summary"), page.locator("details.menu")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Change the key")).to_be_focused()
    page.keyboard.press("Escape")
    expect(summary).to_be_focused()
    expect(box).not_to_have_attribute("open", re.compile(""))
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(summary).to_be_focused()
    summary.click()
    page.locator("#service-list-title").click()
    expect(box).not_to_have_attribute("open", re.compile(""))


def test_the_dialogs_are_japanese_and_fit_a_phone(service: FakeService, open_page: Opener) -> None:
    previous = {"mlflow_version": "3.15.0", "until": stamp(timedelta(days=3))}
    service.add("gaa50000", "e" * 200, upgrades=["9.0.0"], previous=previous)
    page = open_page(width=360, height=740, locale="ja-JP")
    for name, text in (
        ("MLflow のアップグレード", "データベースのコピーで"),
        ("アップグレードの取り消し", "MLflow 3.15.0 と、アップグレード前の"),
        ("サイズの変更", "起動し直します"),
    ):
        dialog = choose(page, name)
        expect(dialog).to_contain_text(text)
        assert dialog.evaluate("each => each.scrollWidth <= each.clientWidth")
        page.keyboard.press("Escape")
    page.locator("details.menu summary").click()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_what_the_service_refuses_is_said_in_the_dialog(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", upgrades=["9.0.0"])
    page = open_page()
    dialog = choose(page, "Upgrade MLflow")
    service.broken = True
    dialog.get_by_role("button", name="Upgrade MLflow").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Give the admins that request id")
    expect(dialog.get_by_role("button", name="Upgrade MLflow")).to_be_enabled()


def test_the_routes_pass_on_what_was_chosen(service: FakeService, caller: Caller) -> None:
    service.add("gaa50000", "wine", previous={"mlflow_version": "3.15.0", "until": stamp()})
    for method, path, body in (("POST", "upgrade", {"mlflow_version": "9"}), ("PUT", "size", {"size": "medium"}), ("POST", "rollback", {})):
        service.servers["gaa50000/wine"]["operation"] = None
        assert caller.send(method, f"/servers/gaa50000/wine/{path}", body).status_code == 202
    assert [each[2] for each in service.received[:2]] == [{"mlflow_version": "9"}, {"size": "medium"}]
    shown = caller.get("/api/state").json["servers"][0]
    assert shown["previous"]["mlflow_version"]
    assert shown["upgrades"] == []
