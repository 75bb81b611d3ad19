"""The page in a browser: what a user does and sees."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from backend.plans.labels import LABELS
from tests.console.conftest import MOUNT, Opener, deleted_twice
from tests.console.fake_service import NOBODY, STEPS, FakeService, stamp
from tests.console.form import fill, row

pytestmark = pytest.mark.browser


def no_sideways_scroll(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_create_shows_its_steps_as_they_happen_and_ends_with_service_created(service: FakeService, open_page: Opener) -> None:
    service.paused = True
    page = open_page()
    expect(page.get_by_text("No tracking server yet")).to_be_visible()
    fill(page)
    page.get_by_role("button", name="Create Service").click()
    steps = page.locator(".steps li")
    expect(steps).to_have_count(len(STEPS["create"]))
    (operation,) = service.operations.values()
    for at, label in enumerate(LABELS[name] for name in STEPS["create"]):
        service.advance(operation)
        expect(steps.nth(at)).to_have_attribute("data-state", "running")
        expect(steps.nth(at)).to_contain_text(label)
        expect(row(page, "wine")).to_contain_text(f"{label} ({at + 1}/{len(STEPS['create'])})")
    service.paused = False
    expect(page.locator(".conclusion")).to_contain_text("Service created")
    expect(page.locator("#spoken")).to_contain_text("Service created")
    expect(row(page, "wine")).to_have_attribute("data-status", "running")
    expect(page.get_by_label("cloud_storage_secret_accesskey")).to_have_value("")
    for state in steps.evaluate_all("all => all.map(each => each.dataset.state)"):
        assert state == "succeeded"
    for text in page.locator(".step-time").all_inner_texts():
        assert re.fullmatch(r"\d+\.\d s", text)
    assert open_page.complaints == []


def test_a_wrong_secret_is_said_beside_its_field_and_nothing_is_made(service: FakeService, open_page: Opener) -> None:
    page = open_page()
    fill(page, key=service.wrong_secret)
    page.get_by_role("button", name="Create Service").click()
    field = page.locator('#create-form [data-field="cloud_storage_secret_accesskey"]')
    expect(field.locator(".invalid-feedback")).to_contain_text(
        "does not belong to the access key AKIAEXAMPLE. Type or choose the secret again."
    )
    expect(page.get_by_label("cloud_storage_secret_accesskey")).to_have_attribute("aria-invalid", "true")
    expect(page.locator('.operation[data-state="failed"]')).to_contain_text("Type or choose the secret again.")
    expect(page.get_by_text("No tracking server yet")).to_be_visible()
    expect(page.get_by_label("env_name")).to_have_value("wine")


def test_what_the_service_refuses_is_said_beside_the_field_and_the_first_gets_the_focus(service: FakeService, open_page: Opener) -> None:
    page = open_page()
    fill(page, env_name="-Bad")
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator("#env_name-error")).to_have_text("Write 2 to 255 of a-z, 0-9, - and _, a letter or digit first")
    expect(page.get_by_label("env_name")).to_be_focused()
    page.get_by_label("env_name").fill("good")
    expect(page.get_by_label("env_name")).not_to_have_attribute("aria-invalid", "true")


def test_empty_fields_are_all_marked(open_page: Opener) -> None:
    page = open_page()
    expect(page.get_by_label("group_name")).to_be_enabled()
    page.get_by_role("button", name="Create Service").click()
    expect(page.get_by_text("Fill in this field.")).to_have_count(5)
    expect(page.get_by_label("group_name")).to_be_focused()


def test_read_credentials_offers_the_profiles(
    service: FakeService, open_page: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    page = open_page()
    fill(page)
    page.get_by_label("Read credentials").check()
    expect(page.locator("#profile-error")).to_contain_text("There is no profile with a key")
    file.write_text("[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = from-the-file\n")
    page.get_by_label("manual").check()
    page.get_by_label("Read credentials").check()
    page.get_by_label("profile", exact=True).select_option("lab")
    expect(page.get_by_label("cloud_storage_secret_accesskey")).to_be_hidden()
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator(".conclusion")).to_contain_text("Service created")
    assert service.received[0][2]["access_key_id"] == "AKIALAB"
    assert "from-the-file" not in page.content()


def test_registration_makes_the_file_and_registers_it(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine", users=NOBODY)
    page = open_page()
    expect(page.get_by_text("Nobody can log in to this server yet")).to_be_visible()
    opens = page.get_by_role("link", name="Open")
    expect(opens).to_have_attribute("aria-disabled", "true")
    expect(opens).to_have_accessible_description("wine Open: register Auth Info first.")
    assert opens.get_attribute("href") is None
    page.get_by_role("button", name="Auth Info Registration").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(server["auth_file"])
    expect(dialog).to_contain_text("{'user_name': 'USER_NAME', 'pass': 'PASSWORD'}")
    register = dialog.get_by_role("button", name="Auth Info Registration")
    make = dialog.get_by_role("button", name="Create the file for me")
    expect(make).to_have_class(re.compile("btn-primary"))  # the next step is the one that stands out
    expect(register).not_to_have_class(re.compile("btn-primary"))
    make.click()
    expect(register).to_have_class(re.compile("btn-primary"))
    expect(dialog).to_contain_text("with the user alice and a new password")
    register.click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Update Auth Info")).to_be_visible()
    expect(opens).to_have_attribute("href", f"{MOUNT}/open/gaa50000/wine")
    expect(page.get_by_text("register Auth Info first")).to_have_count(0)
    expect(page.locator("tr.notes summary")).to_contain_text("alice · MLflow 3.17.2")
    password = service.received[-1][2]["users"][0]["pass"]
    assert password in Path(server["auth_file"]).read_text()
    assert password not in page.content()


def test_delete_says_what_is_kept_wants_the_name_and_can_be_undone(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(re.compile(r"Kept until \w+ \d+, 20\d\d: a snapshot of its database, its settings and its port"))
    expect(dialog).to_contain_text("The bucket wine-models and everything in it are never touched.")
    button = dialog.get_by_role("button", name="Delete")
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill("win")
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill("wine")
    button.click()
    expect(row(page, "wine")).to_have_attribute("data-status", "deleted")
    expect(row(page, "wine")).to_contain_text("can be restored until")
    page.get_by_role("button", name="Restore").click()
    expect(row(page, "wine")).to_have_attribute("data-status", "running")
    assert [each[:2] for each in service.received] == [
        ("DELETE", "/api/v1/servers/gaa50000/wine"),
        ("POST", "/api/v1/servers/gaa50000/wine/restore"),
    ]


def test_restore_brings_back_the_row_that_was_pressed(service: FakeService, open_page: Opener) -> None:
    older, newer = deleted_twice(service)
    page = open_page()
    page.locator(f'tr.server[data-id="{older["id"]}"]').get_by_role("button", name="Restore").click()
    expect(page.locator(f'tr.server[data-id="{older["id"]}"]')).to_have_attribute("data-status", "running")
    expect(page.locator(f'tr.server[data-id="{newer["id"]}"]')).to_have_attribute("data-status", "deleted")


@pytest.mark.parametrize("locale", ["en-US", "ja-JP"])
def test_a_phone_shows_cards_and_never_scrolls_sideways(service: FakeService, open_page: Opener, locale: str) -> None:
    service.add("gaa50000", "e" * 255)
    service.add("gaa50001", "wine", users={"names": ["alice", "b" * 120], "updated_at": stamp()})
    service.add("gaa50001", "old", "deleted", deletion={"deleted_at": stamp(), "restorable_until": stamp(), "kept": []})
    page = open_page(width=320, height=568, locale=locale)  # as 1280 is at four times the size
    expect(row(page, "wine")).to_be_visible()
    assert page.locator("tr.server").first.evaluate("each => getComputedStyle(each).display") == "block"
    assert no_sideways_scroll(page)
    for summary in page.locator("tr.notes summary").all():
        summary.click()
    assert no_sideways_scroll(page)
    page.get_by_role("button", name="Delete").first.click()
    assert no_sideways_scroll(page)
    box = page.get_by_role("dialog").bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
    assert page.get_by_role("dialog").evaluate("each => each.scrollWidth <= each.clientWidth")


def test_in_japanese_the_labels_stay_and_the_rest_is_japanese(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", users=NOBODY)
    page = open_page(locale="ja-JP")
    expect(page.get_by_text("このサーバには、まだ誰もログインできません")).to_be_visible()
    for name in ("Start", "Stop", "Delete", "Service List Update", "Auth Info Registration", "Export model", "Create image"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("データベースのスナップショット、設定、ポートは20")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".steps")).to_contain_text("サーバを停止")
    page.get_by_role("link", name="English").click()
    expect(page.get_by_text("Nothing was asked for yet.").or_(page.locator(".operation")).first).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "en"


def test_markup_in_names_and_messages_stays_text(service: FakeService, open_page: Opener) -> None:
    hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    service.add(
        "gaa50000",
        "wine",
        "failed",
        reason={"code": "x", "detail": hostile, "cure": hostile, "log": [hostile]},
        warnings=[{"code": "y", "detail": hostile, "cure": hostile}],
        users={"names": [hostile], "updated_at": stamp()},
        created_by=hostile,
        outside_url="javascript:alert(1)",
    )
    page = open_page()
    expect(page.get_by_text(hostile).first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "App for MLflow Server"
    assert page.locator('a[href^="javascript"]').count() == 0
    assert open_page.complaints == []


def test_failed_servers_show_reason_cure_and_log_and_warnings_their_cure(service: FakeService, open_page: Opener) -> None:
    service.add(
        "gaa50000", "wine", "failed", reason={"code": "x", "detail": "It did not start", "cure": "Press Start", "log": ["last line"]}
    )
    service.add("gaa50001", "old", warnings=[{"code": "former_member", "detail": "carol left", "cure": "Change the password"}])
    page = open_page()
    failed = page.locator('tr.notes[data-status="failed"]')
    expect(failed).to_contain_text("It did not start")
    expect(failed).to_contain_text("Press Start")
    failed.get_by_text("Last lines of the log").click()
    expect(failed.get_by_text("last line", exact=True)).to_be_visible()
    expect(page.locator("tr.notes .alert-warning")).to_contain_text("carol leftChange the password")


def test_when_the_service_goes_away_the_list_stays_and_comes_back(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    service.stop()
    page.get_by_role("button", name="Service List Update").click()
    banner = page.locator('[data-banner="lost"]')
    expect(banner).to_contain_text("cannot be reached")
    expect(banner).to_contain_text("Running servers keep running, and so do the jobs that log to them.")
    expect(row(page, "wine")).to_be_visible()
    service.start()
    page.get_by_role("button", name="Service List Update").click()
    expect(banner).to_have_count(0)


def test_an_update_keeps_what_was_chosen(service: FakeService, open_page: Opener) -> None:
    page = open_page()
    page.get_by_text("More options").click()
    page.locator("#artifact_access").select_option("direct")
    page.locator("#size").select_option("medium")
    service.choices = service.choices | {"size": ["small"]}
    page.get_by_role("button", name="Service List Update").click()
    expect(page.get_by_text("The list was updated.")).to_be_attached()
    expect(page.locator("#artifact_access")).to_have_value("direct")
    expect(page.locator("#size")).to_have_value("small")


def test_the_list_changes_by_itself_and_only_where_something_changed(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "other", "creating")
    service.add("gaa50000", "wine")
    page = open_page()
    page.locator("tr.notes summary").nth(1).click()
    page.get_by_role("button", name="Stop").nth(1).focus()
    row(page, "wine").evaluate("each => { each.dataset.same = 'yes'; }")
    service.servers["gaa50000/other"]["status"] = "running"
    expect(row(page, "other")).to_have_attribute("data-status", "running")
    expect(row(page, "wine")).to_have_attribute("data-same", "yes")
    expect(page.get_by_role("button", name="Stop").nth(1)).to_be_focused()
    service.servers["gaa50000/wine"]["users"] = {"names": ["bob"], "updated_at": stamp()}
    page.get_by_role("button", name="Service List Update").press("Enter")
    expect(page.locator("tr.notes summary").nth(1)).to_contain_text("bob")
    assert page.locator("tr.notes details").nth(1).get_attribute("open") is not None


def test_a_hidden_tab_asks_nothing(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", "creating")
    page = open_page()
    page.clock.install()
    page.reload()
    expect(row(page, "wine")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.fast_forward(600_000)
    assert page.evaluate("fetch(location.href).then(answer => answer.status)") == 200
    assert [url for url in asked if "/api/" in url] == []
    with page.expect_request(lambda request: "/api/state" in request.url):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


def test_copy_buttons_copy(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy URL for access from inside").click()
    assert page.evaluate("navigator.clipboard.readText()") == server["inside_url"]
    page.get_by_role("button", name="Lines for a job").click()
    page.get_by_role("dialog").get_by_role("button", name="Copy").click()
    assert f"export MLFLOW_TRACKING_URI={server['inside_url']}" in page.evaluate("navigator.clipboard.readText()")


def test_open_leads_outside_first_and_is_closed_while_stopped(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    service.add("gaa50000", "inside", outside_url=None)
    service.add("gaa50000", "off", "stopped")
    page = open_page()
    for name, url in [
        ("wine", f"{MOUNT}/open/gaa50000/wine"),
        ("inside", service.servers["gaa50000/inside"]["inside_url"]),
    ]:
        link = row(page, name).get_by_role("link", name="Open")
        expect(link).to_have_attribute("href", url)
        expect(link).to_have_attribute("target", "_blank")
        expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(row(page, "off").get_by_role("link", name="Open")).to_have_attribute("aria-disabled", "true")


def test_another_sites_page_can_change_nothing(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", "stopped", created_at=stamp(timedelta(days=-1)))
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    foreign = page.context.new_page()
    foreign.route("http://evil.test/", lambda route: route.fulfill(content_type="text/html", body="<p>evil</p>"))
    foreign.goto("http://evil.test/")
    target = open_page.address + "api/servers/gaa50000/wine/start"
    foreign.evaluate("target => fetch(target, {method: 'POST', mode: 'no-cors', credentials: 'include'}).catch(() => null)", target)
    foreign.set_content(f'<form method="post" action="{target}"><button>go</button></form>')
    foreign.get_by_role("button").click()
    foreign.wait_for_url(target)
    expect(foreign.locator("body")).to_contain_text("foreign_page")
    assert service.received == []


def test_older_requests_fold_and_open_again(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", users={"names": ["alice"], "updated_at": stamp()})
    page = open_page()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator('.operation[data-state="succeeded"]')).to_have_count(1)
    page.get_by_role("button", name="Start").click()
    expect(page.locator('.operation[data-state="succeeded"]')).to_have_count(2)
    newer, older = page.locator(".operation").all()
    expect(newer.locator(".steps")).to_be_visible()
    expect(older.locator(".steps")).to_be_hidden()
    older.locator("summary").click()
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator("#spoken")).to_contain_text("The list was updated.")
    expect(older.locator(".steps")).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".operation")).to_have_count(0)


def test_buttons_that_would_change_nothing_rest(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", "sleeping")
    service.add("gaa50000", "off", "stopped")
    page = open_page()
    expect(row(page, "wine").get_by_role("button", name="Start")).to_be_disabled()
    expect(row(page, "wine").get_by_role("button", name="Stop")).to_be_enabled()
    expect(row(page, "off").get_by_role("button", name="Start")).to_be_enabled()
    expect(row(page, "off").get_by_role("button", name="Stop")).to_be_disabled()


def test_a_reload_keeps_the_requests_of_this_page(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", users={"names": ["alice"], "updated_at": stamp()})
    page = open_page()
    expect(page.get_by_text("Nothing was asked for yet.")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".operation")).to_contain_text("Server stopped")
    page.reload()
    expect(page.locator(".operation")).to_contain_text("Server stopped")


def test_a_request_that_the_service_has_forgotten_is_gone(service: FakeService, open_page: Opener) -> None:
    server = service.add("gaa50000", "wine")
    service.paused = True
    page = open_page()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".operation")).to_have_count(1)
    service.operations.clear()
    server["operation"] = None
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator(".operation")).to_have_count(0)
    expect(page.get_by_text("Nothing was asked for yet.")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('aihub-operations')") == "[]"


def test_another_key_is_given_in_a_dialog(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Change the key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Change the key").click()
    expect(dialog.get_by_text("Fill in this field.")).to_have_count(2)
    dialog.get_by_label("cloud_storage_accesskey_ID").fill("AKIANEW")
    dialog.get_by_label("cloud_storage_secret_accesskey").fill("new-secret")
    dialog.get_by_role("button", name="Change the key").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".operation")).to_contain_text("Storage key changed")
    assert service.received[0][2] == {"access_key_id": "AKIANEW", "secret_access_key": "new-secret"}


def test_a_row_rests_as_soon_as_something_was_asked(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine")
    service.paused = True
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    page.route("**/api/state*", lambda route: route.abort())
    page.get_by_role("button", name="Stop").click()
    for name in ("Start", "Stop", "Delete"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    expect(row(page, "wine").locator(".progress-line")).to_contain_text("Stop: Stop the server (1/1)")
