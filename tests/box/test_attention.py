"""A tab of MLflow's page that nobody looks at does not keep the server awake: in Chromium, whose clock is the test's."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.support.box import Box, until
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.box, pytest.mark.browser]
IDLE_SECONDS = 100
LIST, ARTIFACTS = ("#/experiments/0/runs", "/runs/search"), ("#/experiments/0/runs/{run}/artifacts/folder", "/model-versions/search")
"""Pages that ask again and again, and what they ask."""
_HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Tab:
    """A page of MLflow's in a tab; `asked`, `answered`: how often it asked for news, and was answered."""

    def __init__(self, page: Page, url: str, poll: str) -> None:
        self.page, self.asked, self.answered = page, 0, 0
        self._poll = poll
        page.on("request", self._asks)
        page.on("requestfinished", self._is_answered)
        page.clock.install()
        with page.expect_request_finished(lambda request: request.url.split("?")[0].endswith(poll), timeout=60_000):
            page.goto(url)

    def _asks(self, request: Request) -> None:
        self.asked += request.url.split("?")[0].endswith(self._poll)

    def _is_answered(self, request: Request) -> None:
        self.answered += request.url.split("?")[0].endswith(self._poll)

    def _pass_five_seconds(self) -> None:
        self.page.clock.fast_forward(5000)
        self.page.evaluate("fetch('/mlflow/version')")  # time in which the page acts, and its events come here

    def ask_again(self) -> None:
        """Wait until the page has asked once more."""
        before = self.asked
        until(lambda: self._pass_five_seconds() or self.asked > before)

    def is_left_alone(self) -> bool:
        """Whether the page asks for nothing in two minutes of its own clock, counted from an answer: it sets its own alarm then."""
        until(lambda: self.page.evaluate("fetch('/mlflow/version').then(a => a.ok)") and self.answered == self.asked)
        before = self.asked
        for _step in range(24):
            self._pass_five_seconds()
        return self.asked == before


@pytest.fixture
def tab(
    browser: Browser, own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[Tab]:
    page, poll = request.param
    box = own_box(idle_seconds=IDLE_SECONDS, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    run = box.api("POST", "runs/create", json={"experiment_id": "0", "run_name": "looked at"})["run"]["info"]["run_id"]
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/folder/note.txt"
    assert box.request("PUT", artifact, data="a note").status_code == 200
    context = browser.new_context(http_credentials={"username": box.auth[0], "password": box.auth[1]})
    yield Tab(context.new_page(), f"{box.url}/{page.format(run=run)}", poll)
    context.close()


@pytest.mark.parametrize("tab", [LIST, ARTIFACTS], indirect=True)
def test_a_hidden_tab_asks_for_no_news_until_it_is_looked_at(tab: Tab) -> None:
    tab.ask_again()  # as MLflow's page does while it is looked at
    tab.page.evaluate(_HIDE, True)
    until(tab.is_left_alone)
    tab.page.evaluate(_HIDE, False)
    tab.ask_again()


@pytest.mark.parametrize("tab", [LIST, ARTIFACTS], indirect=True)
def test_a_tab_that_nobody_touches_is_left_alone_after_the_idle_time(tab: Tab) -> None:
    tab.ask_again()
    until(tab.is_left_alone)
    tab.page.mouse.move(100, 100)
    tab.page.mouse.move(200, 200)
    tab.ask_again()


@pytest.mark.parametrize("tab", [LIST], indirect=True)
def test_what_a_hidden_tab_is_doing_goes_on(tab: Tab) -> None:
    tab.page.evaluate(_HIDE, True)
    assert tab.page.evaluate("fetch('ajax-api/2.0/mlflow/experiments/get?experiment_id=0').then(a => a.status)") == 200
