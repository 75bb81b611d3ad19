"""The form that creates a server: what is wrong is told where its reader sees it, and only of what this form began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.console.conftest import Opener
from tests.console.fake_service import FakeService, problem, stamp
from tests.console.form import fill

pytestmark = pytest.mark.browser
PLAIN = "1 to 128 printable ASCII characters without spaces"


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credentials file whose one key no service takes."""
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = AKIALAB  # the lab's\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))


def failed(service: FakeService, page: Page, code: str, **params: str) -> None:
    """The page's one operation ends with a failure, and the page has seen it."""
    (operation,) = service.operations.values()
    operation.update(state="failed", finished_at=stamp(), error={"code": code, "params": params})
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator('.operation[data-state="failed"]')).to_be_visible()


def box(page: Page) -> Locator:
    return page.locator("#create-problem .problem-box")


def test_a_refused_key_of_a_profile_is_said_beside_the_profile(
    service: FakeService, open_page: Opener, profile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_body: dict[str, Any]) -> Any:
        return problem("invalid_request", fields={"access_key_id": PLAIN}, why="see the fields")

    monkeypatch.setattr(service, "refusal", refuse)
    page = open_page()
    fill(page)
    page.get_by_label("Read credentials").check()
    page.get_by_label("profile", exact=True).select_option("lab")
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator("#profile-error")).to_have_text(f"aws_access_key_id: {PLAIN}")
    expect(page.locator("#profile-error")).to_be_visible()
    expect(page.get_by_label("profile", exact=True)).to_be_focused()
    page.get_by_label("manual").check()
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator("#cloud_storage_accesskey_ID-error")).to_have_text(PLAIN)
    expect(page.locator("#profile-error")).to_have_text("")


def test_where_the_site_has_fixed_the_storage_its_failure_is_said_above_the_button(service: FakeService, open_page: Opener) -> None:
    def fixed(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps({**answer.json(), "endpoint_url_fixed": True}))

    service.paused = True
    page = open_page()
    page.route("**/api/me", fixed)
    page.reload()
    fill(page)
    expect(page.locator('[data-field="endpoint_url"]')).to_have_attribute("hidden", "")
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator(".operation")).to_have_count(1)
    failed(service, page, "storage_unreachable", endpoint="https://s3.example.org", why="no answer")
    expect(box(page)).to_contain_text("The object store https://s3.example.org cannot be reached: no answer")


@pytest.mark.parametrize("state", ["failed", "succeeded"])
def test_a_create_of_another_member_leaves_the_form_alone(service: FakeService, open_page: Opener, state: str) -> None:
    service.paused = True
    service.begin("create", service.add("gaa50000", "bobs", "creating"))
    page = open_page()
    expect(page.locator(".operation")).to_contain_text("gaa50000 / bobs")
    fill(page, key="alice's own secret")
    if state == "failed":
        failed(service, page, "storage_secret_wrong", access_key_id="AKIAEXAMPLE")
    else:
        service.paused = False
        page.get_by_role("button", name="Service List Update").click()
        expect(page.locator(".conclusion")).to_contain_text("Service created")
    secret = page.get_by_label("cloud_storage_secret_accesskey")
    expect(secret).to_have_value("alice's own secret")
    expect(secret).not_to_have_attribute("aria-invalid", "true")
    expect(box(page)).to_have_count(0)


@pytest.mark.parametrize("state", ["failed", "succeeded"])
def test_what_is_typed_for_the_next_server_stays(service: FakeService, open_page: Opener, state: str) -> None:
    """The first one takes half a minute to be made, and the form is there for the next."""
    service.paused = True
    page = open_page()
    fill(page)
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator(".operation")).to_have_count(1)
    fill(page, "second", key="second's secret")
    secret = page.get_by_label("cloud_storage_secret_accesskey")
    if state == "failed":
        failed(service, page, "storage_secret_wrong", access_key_id="AKIAEXAMPLE")
        expect(box(page)).to_contain_text("does not belong to the access key AKIAEXAMPLE")  # not beside a secret that was never tried
        expect(secret).not_to_have_attribute("aria-invalid", "true")
    else:
        service.paused = False
        page.get_by_role("button", name="Service List Update").click()
        expect(page.locator(".conclusion")).to_contain_text("Service created")
    expect(secret).to_have_value("second's secret")


def test_what_is_wrong_with_the_next_server_stays_when_the_first_is_there(service: FakeService, open_page: Opener) -> None:
    service.paused = True
    page = open_page()
    fill(page)
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator(".operation")).to_have_count(1)
    page.get_by_label("env_name").fill("-Bad")
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator("#env_name-error")).to_contain_text("Write 2 to 255")
    service.paused = False
    page.get_by_role("button", name="Service List Update").click()
    expect(page.locator(".conclusion")).to_contain_text("Service created")
    expect(page.locator("#env_name-error")).to_contain_text("Write 2 to 255")
    expect(page.get_by_label("cloud_storage_secret_accesskey")).to_have_value("right")


def test_a_server_gets_the_version_that_was_chosen_of_several(service: FakeService, open_page: Opener) -> None:
    service.choices = service.choices | {"mlflow_version": ["3.17.2", "3.15.0"]}
    page = open_page()
    fill(page)
    page.get_by_text("More options").click()
    version = page.locator("#mlflow_version")
    expect(version.locator("option")).to_have_text(["3.17.2", "3.15.0"])
    expect(version).to_have_value("3.17.2")
    version.select_option("3.15.0")
    page.get_by_role("button", name="Create Service").click()
    expect(page.locator(".conclusion")).to_contain_text("Service created")
    assert [body["mlflow_version"] for method, _path, body in service.received if method == "POST"] == ["3.15.0"]
