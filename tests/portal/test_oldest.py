"""A browser behind the oldest portal that is supported: the other suites of browsers have the newest, which takes most away."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.portal.centre import OWNER, STRANGER, Centre, open_centre
from tests.support.portal import VERSIONS
from tests.support.s3 import S3Store

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.box,
    pytest.mark.browser,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts consoles of several users"),
]
WRITE = """async (run) => (await fetch('ajax-api/2.0/mlflow/runs/set-tag', {method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({run_id: run, key: 'seen', value: 'in the browser'})})).status"""
UPLOAD = """async (run) => (await fetch(`ajax-api/2.0/mlflow-artifacts/artifacts/0/${run}/artifacts/from-browser.bin`,
    {method: 'PUT', body: new Uint8Array(20_000_000)})).status"""


@pytest.fixture(scope="module")
def oldest(browser: Browser, s3_store: S3Store) -> Iterator[Centre]:
    with open_centre(browser, s3_store, version=VERSIONS[0]) as made:
        yield made


def test_one_click_opens_a_run_which_its_page_may_write(oldest: Centre) -> None:
    context = oldest.context(OWNER)
    page = oldest.open(context)
    assert page.evaluate("async () => (await (await fetch('-/info')).json()).principal") == f"portal:{OWNER}"
    page.goto(f"{oldest.url}#/experiments/0/runs/{oldest.run_id}")
    expect(page.get_by_text("a run of the portal test").first).to_be_visible(timeout=60_000)
    assert (page.evaluate(WRITE, oldest.run_id), page.evaluate(UPLOAD, oldest.run_id)) == (200, 200)
    context.close()


def test_a_stranger_is_refused(oldest: Centre) -> None:
    context = oldest.context(STRANGER)
    answer = context.new_page().goto(f"{oldest.url}-/info")
    assert answer is not None
    assert answer.status == 401
    context.close()
