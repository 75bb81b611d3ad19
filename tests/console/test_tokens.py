"""The list of a server's tokens, the end of one, and a new one, whose text is on a page of its own and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.console.conftest import VISIT, Caller, Opener
from tests.console.fake_service import NOBODY, FakeService, stamp

pytestmark = pytest.mark.browser
PATH = "/tokens/gaa50000/wine"
SECRET = "text-of-the-token"


@pytest.fixture
def tokens(service: FakeService, open_page: Opener) -> Locator:
    """The dialog, of a server with a token of each kind."""
    service.add("gaa50000", "wine")
    service.add_token("gaa50000/wine", name="old", state="expired", expires_at=stamp(timedelta(days=-1)))
    service.add_token("gaa50000/wine", name="carol's", user="carol")
    service.add_token("gaa50000/wine", name="dave's", user="dave")
    service.add_token("gaa50000/wine", name="<b>night run</b>")
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Tokens", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("tbody tr")).to_have_count(4)
    return dialog


def test_the_list_says_whose_and_until_when_and_ends_one(service: FakeService, tokens: Locator) -> None:
    rows = tokens.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("alice (you)<b>night run</b>in force")
    expect(rows.nth(2)).to_contain_text("carol")
    expect(rows.nth(3)).to_contain_text("expired")
    expect(rows.nth(3).get_by_role("button")).to_have_count(0)
    rows.nth(0).get_by_role("button", name="Revoke").click()
    expect(rows.nth(0)).to_contain_text("revoked")
    assert [each[0] for each in service.received] == ["DELETE"]
    rows.nth(1).get_by_role("button", name="Revoke").click()
    expect(tokens.get_by_role("alert")).to_contain_text("belongs to dave")
    expect(rows.nth(1).get_by_role("button", name="Revoke")).to_be_enabled()


def test_a_new_one_is_shown_once_in_a_window_of_its_own(service: FakeService, tokens: Locator) -> None:
    page = tokens.page
    tokens.get_by_label("What for").fill("night run 2")
    tokens.get_by_label("How many days").fill("1.5")
    with page.context.expect_page() as opened:
        tokens.get_by_role("button", name="Make a token").click()
    shown = opened.value
    expect(shown.locator("#secret")).to_contain_text(SECRET)
    assert shown.evaluate("window.opener") is None
    assert SECRET not in shown.url
    assert service.received[-1][2] == {"seconds": 129600, "name": "night run 2"}
    shown.get_by_role("button", name="Copy the token").click()
    assert shown.evaluate("navigator.clipboard.readText()") == shown.locator("#secret").inner_text()
    shown.close()
    page.bring_to_front()
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(tokens.locator("tbody tr").first).to_contain_text("night run 2in force within seconds")
    assert SECRET not in page.content()


def test_one_more_enter_ends_no_other_token(service: FakeService, tokens: Locator) -> None:
    rows = tokens.locator("tbody tr")
    rows.nth(2).get_by_role("button", name="Revoke").press("Enter")
    expect(rows.nth(2)).to_contain_text("revoked")
    expect(rows.nth(2)).to_be_focused()
    tokens.page.keyboard.press("Enter")
    expect(rows.nth(0)).to_contain_text("in force")
    assert [each[0] for each in service.received] == ["DELETE"]


def test_who_comes_back_to_the_window_finds_the_place_again(service: FakeService, tokens: Locator) -> None:
    page, rows = tokens.page, tokens.locator("tbody tr")
    revoke = rows.filter(has_text="carol").get_by_role("button", name="Revoke")
    revoke.focus()
    rows.first.evaluate("each => { each.dataset.same = 'yes'; }")
    with page.expect_response("**/tokens"):
        page.evaluate("window.dispatchEvent(new Event('focus'))")
    service.add_token("gaa50000/wine", name="new")
    expect(revoke).to_be_focused()
    expect(rows.first).to_have_attribute("data-same", "yes")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(rows).to_have_count(5)
    expect(revoke).to_be_focused()


def test_a_double_click_makes_one_token(service: FakeService, tokens: Locator) -> None:
    with tokens.page.context.expect_page() as opened:
        tokens.get_by_role("button", name="Make a token").dblclick()
    expect(opened.value.locator("#secret")).to_contain_text(SECRET)
    tokens.page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(tokens.locator("tbody tr")).to_have_count(5)
    assert [each[0] for each in service.received] == ["POST"]


def post(caller: Caller, *, days: str = "7", **headers: str) -> Any:
    form = {"csrf_token": caller.token, "name": "n", "days": days}
    return caller.client.post(PATH, data=form, headers={"Origin": "http://localhost", **VISIT, **headers})


def test_whatever_a_script_could_read_makes_no_token(service: FakeService, caller: Caller) -> None:
    service.add("gaa50000", "wine")
    made = post(caller)
    assert SECRET in made.get_data(as_text=True)
    assert made.headers["Cross-Origin-Opener-Policy"] == "noopener-allow-popups"
    assert (made.headers["Cache-Control"], made.headers["Referrer-Policy"]) == ("no-store", "same-origin")
    refused = [
        post(caller, **{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
        post(caller, **{"Sec-Fetch-Dest": "iframe"}),
        post(caller, **{"Service-Worker-Navigation-Preload": "true"}),
        post(caller, Origin="https://evil.example.org"),
        post(caller, **{"Sec-Fetch-Site": "cross-site"}),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert caller.client.post(PATH, data={"days": "7"}, headers={"Origin": "http://localhost", **VISIT}).status_code == 400
    assert caller.get(PATH, headers=VISIT).status_code == 405
    assert len(service.tokens["gaa50000/wine"]) == 1


@pytest.mark.parametrize(
    ("days", "status", "said"), [("soon", 422, "such as 7 or 0.5"), ("31", 403, "30 days at most"), ("inf", 422, "such")]
)
def test_why_not_is_a_page_with_the_cure(service: FakeService, caller: Caller, days: str, status: int, said: str) -> None:
    service.add("gaa50000", "wine")
    answer = post(caller, days=days)
    assert answer.status_code == status
    assert said in answer.get_data(as_text=True)


def test_what_is_refused_is_a_page_too(service: FakeService, caller: Caller) -> None:
    service.add("gaa50000", "wine")
    stale = Caller(caller.client, "of another session")
    for answer, said in [
        (post(stale), "Reload the console&#39;s page"),
        (post(caller, **{"Sec-Fetch-Site": "cross-site"}), "came from another page"),
    ]:
        assert answer.mimetype == "text/html"
        assert said in answer.get_data(as_text=True)
        assert "gaa50000/wine" in answer.get_data(as_text=True)


def test_a_token_that_may_have_been_made_is_looked_for_first(service: FakeService, caller: Caller) -> None:
    service.stop()
    answer = post(caller)
    assert answer.status_code == 503
    assert "look at the list before you ask again" in answer.get_data(as_text=True)


def test_the_page_of_a_token_is_japanese_where_the_browser_asks(service: FakeService, caller: Caller) -> None:
    service.add("gaa50000", "wine")
    assert "表示されるのは今回だけです" in post(caller, **{"Accept-Language": "ja"}).get_data(as_text=True)


def test_before_a_user_is_registered_there_is_none_to_make(service: FakeService, open_page: Opener) -> None:
    service.add("gaa50000", "wine", users=NOBODY)
    page = open_page()
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Tokens", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Register Auth Info first")
    expect(page.get_by_role("button", name="Make a token")).to_have_count(0)
