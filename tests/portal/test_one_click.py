"""Everything at once: portal, each user's own console, service, box, object store, and a real browser. Nobody types a password."""

import os

import pytest
from playwright.sync_api import expect

from tests.portal.centre import GROUP, MEMBER, OWNER, STRANGER, Centre
from tests.support.pun import MOUNT
from tests.support.runtimes import on_both_runtimes

pytestmark = [
    on_both_runtimes(pytest.mark.long),
    pytest.mark.heavy,
    pytest.mark.box,
    pytest.mark.browser,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts consoles of several users"),
]
PATIENCE = 60_000
"""Milliseconds: a busy machine draws MLflow's pages slowly."""


@pytest.mark.parametrize("user", [OWNER, MEMBER])
def test_a_member_is_in_with_one_click(centre: Centre, user: str) -> None:
    context = centre.context(user)
    page = centre.open(context)
    info = page.evaluate("async () => (await fetch('-/info')).json()")
    assert info["principal"] == f"portal:{user}"
    assert "ticket" not in page.url
    assert not any("ticket=" in line for line in centre.portal.log.splitlines())
    context.close()


def test_run_artifacts_and_registry_are_shown_and_the_page_may_write_read_and_upload(centre: Centre) -> None:
    context = centre.context(OWNER)
    page = centre.open(context)
    failed: list[str] = []
    # MLflow's page asks for these two also where they are refused on purpose, or do not exist.
    known = ("users/current", "/assistant/")
    page.on(
        "response", lambda answer: failed.append(answer.url) if answer.status >= 400 and not any(k in answer.url for k in known) else None
    )
    page.goto(f"{centre.url}#/experiments/0/runs/{centre.run_id}")
    expect(page.get_by_text("a run of the portal test").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("rmse").first).to_be_visible(timeout=PATIENCE)
    page.goto(f"{centre.url}#/experiments/0/runs/{centre.run_id}/artifacts")
    expect(page.get_by_text("large.bin").first).to_be_visible(timeout=PATIENCE)
    page.goto(f"{centre.url}#/models")
    expect(page.get_by_text("PortalModel").first).to_be_visible(timeout=PATIENCE)
    page.goto(f"{centre.url}#/models/PortalModel")
    expect(page.get_by_text("Version 1").first).to_be_visible(timeout=PATIENCE)
    assert failed == []
    # A write of the page's own, through the portal: it carries the portal's origin.
    status = page.evaluate(
        """async (run) => (await fetch('ajax-api/2.0/mlflow/runs/set-tag', {method: 'POST', headers: {'Content-Type': 'application/json'},
            body: JSON.stringify({run_id: run, key: 'seen', value: 'in the browser'})})).status""",
        centre.run_id,
    )
    assert status == 200
    size = page.evaluate(
        "async (run) => (await (await fetch(`get-artifact?run_id=${run}&path=large.bin`)).arrayBuffer()).byteLength", centre.run_id
    )
    assert size == 32_000_000
    uploaded = page.evaluate(
        """async (run) => (await fetch(`ajax-api/2.0/mlflow-artifacts/artifacts/0/${run}/artifacts/from-browser.bin`,
            {method: 'PUT', body: new Uint8Array(20_000_000)})).status""",
        centre.run_id,
    )
    assert uploaded == 200
    context.close()


def test_an_uploaded_page_does_not_reach_the_console(centre: Centre) -> None:
    context = centre.context(OWNER)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    page = centre.open(context)
    page.goto(f"{centre.url}#/experiments/0/runs/{centre.run_id}/artifacts/page.html")
    element = page.wait_for_selector("iframe[src^=blob]")
    frame = element.content_frame() if element else None
    assert frame is not None
    frame.get_by_text("an uploaded page").wait_for()
    asked.clear()
    page.goto("about:blank")
    # Straight from its address MLflow sends it as a download; framed as the box's policy wants, it is shown and does nothing.
    page.goto(centre.url)
    shown = page.evaluate(
        """async (run) => {
            const answer = await fetch(`get-artifact?run_id=${run}&path=page.html`);
            const frame = document.createElement('iframe');
            const sandboxed = (answer.headers.get('Content-Security-Policy') ?? '').split(/[,;] ?/).includes('sandbox');
            if (sandboxed) frame.setAttribute('sandbox', '');
            frame.srcdoc = await answer.text();
            const loaded = new Promise(done => frame.addEventListener('load', done));
            document.body.append(frame);
            await loaded;
            return sandboxed;
        }""",
        centre.run_id,
    )
    assert shown is True
    assert [each for each in asked if MOUNT in each] == []
    with centre.client() as client:
        assert client.server(GROUP, "wine").status == "running"
    context.close()


def test_a_stranger_is_refused_everywhere(centre: Centre) -> None:
    context = centre.context(STRANGER)
    page = centre.console(context)
    expect(page.get_by_text("No tracking server yet")).to_be_visible(timeout=PATIENCE)
    answer = page.goto(f"{centre.portal.origin}{MOUNT}/open/{GROUP}/wine")
    assert answer is not None
    page.wait_for_load_state()
    assert centre.url not in page.url
    for path in ("", "-/info", "ajax-api/2.0/mlflow/experiments/search", f"get-artifact?run_id={centre.run_id}&path=large.bin"):
        answer = page.goto(f"{centre.url}{path}")
        assert answer is not None
        assert answer.status == 401, path
    # With a member's cookie in hand it is still the stranger whom the portal names.
    member = centre.context(OWNER)
    centre.open(member)
    stolen = [cookie for cookie in member.cookies() if "aihub" in str(cookie.get("name")) and "rnode" in str(cookie.get("path"))]
    assert stolen
    context.add_cookies(stolen)  # type: ignore[arg-type]  # what cookies() gives, add_cookies() takes
    answer = page.goto(f"{centre.url}-/info")
    assert answer is not None
    assert answer.status == 401
    member.close()
    context.close()
