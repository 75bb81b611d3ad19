"""MLflow's own UI in Chromium, through the box; and that what a run uploaded cannot act there."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.box import Box

pytestmark = [pytest.mark.box, pytest.mark.browser]
# Whoever runs this in the server's origin can read the API with the viewer's login, and says so in the page and in the title.
ATTACK = """
try { document.title = 'script ran'; parent.document.title = 'script ran in the origin'; } catch (error) { }
fetch('/mlflow/-/info').then(r => r.json()).then(d => { new Image().src = '/mlflow/stolen-' + d.principal; });
"""
HTML = f"<!doctype html><p id=shown>an uploaded page</p><script>{ATTACK}</script>"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/><script>{ATTACK}</script></svg>'


@pytest.fixture
def context(browser: Browser, box: Box) -> Iterator[BrowserContext]:
    context = browser.new_context(http_credentials={"username": box.auth[0], "password": box.auth[1]})
    yield context
    context.close()


@pytest.fixture
def run_id(box: Box) -> str:
    run = box.api("POST", "runs/create", json={"experiment_id": "0", "run_name": "seen in the browser"})["run"]["info"]
    for name, content in (("page.html", HTML), ("picture.svg", SVG)):
        path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run['run_id']}/artifacts/{name}"
        assert box.request("PUT", path, data=content).status_code == 200
    found: str = run["run_id"]
    return found


def test_the_ui_shows_a_run(box: Box, context: BrowserContext, run_id: str) -> None:
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{box.url}/#/experiments/0/runs/{run_id}")
    page.get_by_text("seen in the browser").first.wait_for(timeout=60_000)
    assert errors == []


def stolen(requested: list[str]) -> list[str]:
    return [url for url in requested if "stolen" in url]


def watch(page: Page) -> list[str]:
    requested: list[str] = []
    page.context.on("request", lambda request: requested.append(request.url))
    return requested


def prove_that_the_attack_would_be_seen(page: Page, requested: list[str]) -> None:
    """Run by the origin itself, the same script is noticed: so its silence before means something."""
    with page.expect_request(lambda request: "stolen" in request.url):
        page.evaluate(f"(() => {{ {ATTACK} }})()")
    assert stolen(requested) != []


@pytest.mark.parametrize(("name", "shown"), [("page.html", "iframe[src^=blob]"), ("picture.svg", "img[src^=blob]")])
def test_an_upload_opened_in_the_ui_cannot_act(box: Box, context: BrowserContext, run_id: str, name: str, shown: str) -> None:
    page = context.new_page()
    requested = watch(page)
    page.goto(f"{box.url}/#/experiments/0/runs/{run_id}/artifacts/{name}")
    element = page.wait_for_selector(shown, timeout=60_000)
    assert element is not None
    frame = element.content_frame()
    if frame is not None:
        frame.get_by_text("an uploaded page").wait_for(timeout=60_000)
    assert "ran in the origin" not in page.title()
    assert stolen(requested) == []
    prove_that_the_attack_would_be_seen(page, requested)


@pytest.mark.parametrize("name", ["page.html", "picture.svg"])
def test_an_upload_opened_by_its_address_cannot_act(box: Box, context: BrowserContext, run_id: str, name: str) -> None:
    """In a frame of a page of the same origin, where it would be most dangerous; MLflow sends it as a download otherwise."""
    page = context.new_page()
    requested = watch(page)
    page.goto(f"{box.url}/")
    policy = page.evaluate(
        """async ([run, name]) => {
            const answer = await fetch(`/mlflow/get-artifact?run_id=${run}&path=${name}`);
            const frame = document.createElement('iframe');
            // As the answer would be shown without its `attachment`: same policy, same content, framed by the origin.
            const policy = answer.headers.get('Content-Security-Policy');
            frame.setAttribute('sandbox', policy === 'sandbox' ? '' : 'allow-scripts allow-same-origin');
            frame.srcdoc = await answer.text();
            const loaded = new Promise(done => frame.addEventListener('load', done));
            document.body.append(frame);
            await loaded;
            return policy;
        }""",
        [run_id, name],
    )
    assert policy == "sandbox"
    assert "script ran" not in page.title()
    assert stolen(requested) == []
    prove_that_the_attack_would_be_seen(page, requested)
