"""A tab of MLflow's page that nobody looks at does not keep the server awake: in Chromium, whose clock is the test's."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.support.box import Box, until

pytestmark = [pytest.mark.box, pytest.mark.browser]
IDLE_SECONDS = 100
SEARCH = "/runs/search"
_HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Runs:
    """MLflow's list of runs, open in a tab; `asked`, `answered`: how often it asked for them, and was answered."""

    def __init__(self, page: Page, box: Box) -> None:
        self.page, self.asked, self.answered = page, 0, 0
        page.on("request", self._asks)
        page.on("requestfinished", self._is_answered)
        page.clock.install()
        with page.expect_request_finished(lambda request: request.url.endswith(SEARCH), timeout=60_000):
            page.goto(f"{box.url}/#/experiments/0/runs")

    def _asks(self, request: Request) -> None:
        self.asked += request.url.endswith(SEARCH)

    def _is_answered(self, request: Request) -> None:
        self.answered += request.url.endswith(SEARCH)

    def _pass_five_seconds(self) -> None:
        self.page.clock.fast_forward(5000)
        self.page.evaluate("fetch('/mlflow/version')")  # time in which the page acts, and its events come here

    def ask_again(self) -> None:
        """Wait until the page has asked once more."""
        before = self.asked
        until(lambda: self._pass_five_seconds() or self.asked > before)

    def are_left_alone(self) -> bool:
        """Whether the page asks for none in two minutes of its own clock, counted from an answer: it sets its own alarm then."""
        until(lambda: self.page.evaluate("fetch('/mlflow/version').then(a => a.ok)") and self.answered == self.asked)
        before = self.asked
        for _step in range(24):
            self._pass_five_seconds()
        return self.asked == before


@pytest.fixture
def runs(browser: Browser, own_box: Callable[..., Box]) -> Iterator[Runs]:
    box = own_box(idle_seconds=IDLE_SECONDS)
    box.start()
    box.api("POST", "runs/create", json={"experiment_id": "0", "run_name": "looked at"})
    context = browser.new_context(http_credentials={"username": box.auth[0], "password": box.auth[1]})
    yield Runs(context.new_page(), box)
    context.close()


def test_a_hidden_tab_asks_for_no_news_until_it_is_looked_at(runs: Runs) -> None:
    runs.ask_again()  # as MLflow's page does every half minute
    runs.page.evaluate(_HIDE, True)
    until(runs.are_left_alone)
    runs.page.evaluate(_HIDE, False)
    runs.ask_again()


def test_a_tab_that_nobody_touches_is_left_alone_after_the_idle_time(runs: Runs) -> None:
    runs.ask_again()
    until(runs.are_left_alone)
    runs.page.mouse.move(100, 100)
    runs.page.mouse.move(200, 200)
    runs.ask_again()


def test_what_a_hidden_tab_is_doing_goes_on(runs: Runs) -> None:
    runs.page.evaluate(_HIDE, True)
    assert runs.page.evaluate("fetch('ajax-api/2.0/mlflow/experiments/get?experiment_id=0').then(a => a.status)") == 200
