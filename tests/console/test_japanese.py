"""In Japanese nothing is left in English but labels, names and addresses: a text that was never wrapped is in no catalogue to be missed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from ood_app import caller as own
from tests.console.conftest import Opener
from tests.console.fake_service import NOBODY, STEPS, FakeService, stamp
from tests.console.form import row
from tests.console.reading import left_in_english

pytestmark = pytest.mark.browser
LEASE = {"id": "x", "user": "carol", "until": stamp(timedelta(hours=9)), "at_end": "stop", "note": "job 17"}
BEFORE = {"mlflow_version": "3.15.0", "until": stamp(timedelta(days=3))}
LOG = {"code": "port_taken", "params": {"port": 21003}, "log": ["OSError"]}


@pytest.fixture
def services(service: FakeService) -> FakeService:
    """With a server in each state, and of each thing that is told of one."""
    service.add("gaa50000", "wine", upgrades=["9.0.0"], previous=BEFORE, leases=[LEASE, LEASE | {"at_end": "keep"}])
    service.add(
        "gaa50000",
        "sleeping",
        "sleeping",
        idle_seconds=0,
        warnings=[{"code": "former_member", "params": {"names": "dave", "auth_file": "/x/basic_auth.yml"}}],
    )
    service.add("gaa50000", "stopped", "stopped", users=NOBODY)
    service.add("gaa50000", "failed", "failed", reason=LOG, users={"names": list("abcde"), "updated_at": stamp()})
    service.add("gaa50000", "creating", "creating")
    service.add("gaa50000", "deleting", "deleting")
    kept = {"deleted_at": stamp(), "restorable_until": stamp(timedelta(days=14)), "kept": ["database"]}
    service.add("gaa50000", "deleted", "deleted", deletion=kept)
    for name in ("a1", "a2"):
        service.add("gaa50001", name, outside_url=None)
    service.add_token("gaa50000/wine", name="night run")
    for state in ("pending", "expired", "revoked"):
        service.add_token("gaa50000/wine", name="night run", user="carol", state=state)
    return service


def look(page: Page) -> None:
    """As the page does by itself, seconds later."""
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")


def dialog_of(page: Page, button: str, *, menu: bool = False) -> Locator:
    """What a press on a button of the server `wine` opens."""
    if menu:
        row(page, "wine").locator("details.menu summary").click()
    row(page, "wine").get_by_role("button", name=button, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def test_the_list_and_the_form(services: FakeService, open_page: Opener) -> None:
    page = open_page(locale="ja-JP", permissions=["clipboard-read", "clipboard-write"])
    expect(row(page, "wine")).to_be_visible()
    assert left_in_english(page, services) == set()
    page.get_by_role("button", name="URL for access from inside をコピー").first.click()
    expect(page.locator("#spoken p")).to_have_count(1)
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator("#spoken p")).to_have_count(2)
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator("#env_name-error")).not_to_be_empty()
    page.locator("#find").fill("alice")
    expect(page.locator("#matches")).not_to_be_empty()
    assert left_in_english(page, services) == set()
    page.locator("#find").fill("lab")
    expect(page.locator("#nothing")).to_be_visible()
    assert left_in_english(page, services) == set()


def test_an_empty_list_and_a_form_without_a_profile_or_a_group(
    service: FakeService, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    page = open_page(locale="ja-JP")
    expect(page.locator(".empty")).to_be_visible()
    page.get_by_label("Read credentials").check()
    expect(page.locator("#profile-error")).not_to_be_empty()
    assert left_in_english(page, service) == set()
    service.groups = []
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator("[data-no-group]")).to_be_visible()
    assert left_in_english(page, service) == set()


@pytest.mark.parametrize("kinds", [[*STEPS][:6], [*STEPS][6:]], ids=", ".join)
def test_requests_under_way_done_and_failed(service: FakeService, open_page: Opener, kinds: list[str]) -> None:
    service.paused = True
    asked = [service.begin(kind, service.add("gaa50000", f"s{at}", previous=BEFORE)) for at, kind in enumerate(kinds)]
    for operation in asked[1:]:
        operation["requested_by"] = "carol"
    service.advance(asked[0])
    page = open_page(locale="ja-JP")
    expect(page.locator(".operation")).to_have_count(len(kinds))
    assert left_in_english(page, service) == set()
    states = ["succeeded", "failed", "undone", "pending"]
    for operation in asked[:-1]:
        for step, state in zip(operation["steps"], states, strict=False):
            step.update(state=state, started_at=stamp(timedelta(minutes=-2)), finished_at=stamp())
        service.servers[f"gaa50000/{operation['env_name']}"]["operation"] = None
        operation.update(state="failed", finished_at=stamp(), error=LOG, request_id="0123456789abcdef")
    service.paused = False
    look(page)
    expect(page.locator('.operation[data-state="failed"]')).to_have_count(len(kinds) - 1)
    expect(page.locator('.operation[data-state="succeeded"]')).to_have_count(1)
    assert left_in_english(page, service) == set()


DIALOGS = ["Delete", "Stop", "ジョブ用の設定", "Export model", "Create image"]
IN_MENU = ["トークン", "キーの変更", "サイズの変更", "MLflow のアップグレード", "アップグレードの取り消し"]


@pytest.mark.parametrize("button", [*DIALOGS, *IN_MENU])
def test_each_dialog(services: FakeService, open_page: Opener, button: str) -> None:
    page = open_page(locale="ja-JP")
    dialog = dialog_of(page, button, menu=button in IN_MENU)
    if button == "トークン":
        expect(dialog.locator("tbody tr")).to_have_count(4)
    if button == "キーの変更":
        dialog.get_by_role("button", name=button).click()
        expect(dialog.locator(".invalid-feedback").first).not_to_be_empty()
    assert left_in_english(page, services) == set()


def test_auth_info_registration_without_a_file(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", users=NOBODY)
    page = open_page(locale="ja-JP")
    dialog = dialog_of(page, "Auth Info Registration")
    assert left_in_english(page, service, "{'user_name': 'USER_NAME', 'pass': 'PASSWORD'}") == set()
    dialog.locator(".dialog-foot .btn-primary").click()
    expect(dialog.get_by_role("status")).to_be_visible()
    assert left_in_english(page, service, f"cat '{server['auth_file']}'") == set()
    Path(server["auth_file"]).chmod(0o644)
    dialog.get_by_role("button", name="Auth Info Registration").click()
    expect(page.locator("tr.notes .alert-warning")).to_be_visible()
    assert left_in_english(page, service) == set()


def test_what_is_told_above_the_list(service: FakeService, open_page: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    service.add("gaa50000", "wine")
    page = open_page(locale="ja-JP")
    for change in (own.GroupChange(joined=("gaa50000",), left=()), own.GroupChange(joined=(), left=("gone",))):
        monkeypatch.setattr(own, "group_change", lambda change=change: change)
        with page.expect_response("**/api/me"):
            page.get_by_role("button", name="Service List Update").click()
        expect(page.locator('[data-banner="groups"]')).to_contain_text((change.joined + change.left)[0])
        assert left_in_english(page, service) == set()
    service.broken = True
    row(page, "wine").get_by_role("button", name="Stop").click()
    expect(page.locator("tr.notes .alert-danger")).to_be_visible()
    assert left_in_english(page, service) == set()
    service.stop()
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator('[data-banner="lost"]')).to_contain_text("ソケットがありません")
    assert left_in_english(page, service) == set()
    page.reload()
    expect(page.locator('[data-banner="lost"]')).to_be_visible()
    assert left_in_english(page, service) == set()


def test_the_page_of_a_new_token(services: FakeService, open_page: Opener) -> None:
    page = open_page(locale="ja-JP")
    dialog = dialog_of(page, "トークン", menu=True)
    with page.context.expect_page() as opened:
        dialog.locator("form button").click()
    token = opened.value
    expect(token.locator("#line button")).to_be_visible()
    assert left_in_english(token, services, token.locator("#secret").inner_text()) == set()


def test_the_page_that_opens_a_server(services: FakeService, open_page: Opener) -> None:
    page = open_page(locale="ja-JP")
    page.route("https://portal.example.org/**", lambda route: route.fulfill(status=204))  # the browser stays on the page
    for name, there in (("wine", "form button"), ("stopped", ".problem-box")):
        page.goto(f"{open_page.address}open/gaa50000/{name}", wait_until="commit")
        expect(page.locator(there)).to_be_visible()
        assert left_in_english(page, services) == set()
