"""Everything at once: portal, each user's own console, service, box, object store, and a real browser. Nobody types a password."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from mlwf.client import Client
from mlwf.secret import Secret
from mlwf.user import User
from playwright.sync_api import Browser, BrowserContext, Page, expect

from demo.ports import free_ports
from tests.mlwf.tracking import MLMODEL
from tests.service.edge.live import Live, live_service
from tests.support.box import MLFLOW_VERSION, environment, until
from tests.support.ordinary import write_program
from tests.support.portal import SESSION, VERSIONS, Portal
from tests.support.pun import MOUNT
from tests.support.s3 import S3Store

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.box,
    pytest.mark.browser,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts consoles of several users"),
]
# Accounts that every Debian has: the first two share a group, the third is a stranger to it.
OWNER, MEMBER, STRANGER = "sync", "nobody", "games"
GROUP = "nogroup"
PATIENCE = 60_000
"""Milliseconds: a busy machine draws MLflow's pages slowly."""
# What a run may hold to harm who looks at it: with the portal's session it would stop the server, and say so.
ATTACK = f"""<!doctype html><p id=shown>an uploaded page</p><script>
(async () => {{
  const page = await (await fetch('{MOUNT}/')).text();
  const token = page.split('name="csrf-token" content="')[1].split('"')[0];
  const headers = {{'X-CSRFToken': token, 'Content-Type': 'application/json'}};
  await fetch('{MOUNT}/api/servers/{GROUP}/wine/stop', {{method: 'POST', headers, body: '{{}}'}});
}})();
</script>"""


@dataclass
class Centre:
    """`url`: the server's address from outside."""

    portal: Portal
    live: Live
    browser: Browser
    run_id: str = ""
    url: str = ""

    def client(self) -> Client:
        return self.live.client()

    def context(self, user: str) -> BrowserContext:
        """A browser whose user has a portal session, and nothing else."""
        made = self.browser.new_context(ignore_https_errors=True, viewport={"width": 1500, "height": 1000})
        made.set_default_timeout(60_000)
        made.add_cookies([{"name": SESSION, "value": user, "url": self.portal.origin}])
        return made

    def console(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.goto(f"{self.portal.origin}{MOUNT}/")
        return page

    def open(self, context: BrowserContext) -> Page:
        """One click on Open."""
        page = self.console(context)
        with context.expect_page() as opened:
            page.get_by_role("link", name="Open").click()
        opened.value.wait_for_url(f"{self.url}**")
        return opened.value


def _console_of(user: str, port: int, program: Path, portal: Portal, live: Live) -> "subprocess.Popen[bytes]":
    account = pwd.getpwnam(user)
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "SECRET_KEY_BASE": user * 16,
        "MLWF_SERVICE": f"unix://{live.socket}",
        "AIHUB_CONSOLE_PORTAL_URL": portal.origin,
    }
    argv = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", str(program), str(port)]
    return subprocess.Popen(argv, env=settings, cwd="/", stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module", params=VERSIONS[-1:])
def centre(
    request: pytest.FixtureRequest, browser: Browser, s3_store: S3Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Centre]:
    users = (OWNER, MEMBER, STRANGER)
    portal = Portal(request.param, dict(zip(users, free_ports(3), strict=True)))
    portal.home.chmod(0o755)
    program = write_program(portal.home / "console", "tests.support.pun")
    envs = {"envs_dir": str(environment().parent), "mlflow_versions": [MLFLOW_VERSION]}
    consoles: list[subprocess.Popen[bytes]] = []
    with live_service(endpoint_url=s3_store.endpoint_url, portal_url=portal.origin, idle_seconds=0, **envs) as live:
        try:
            live.start()
            portal.start()
            consoles += [_console_of(user, port or 0, program, portal, live) for user, port in portal.users.items()]
            made = Centre(portal, live, browser)
            until(lambda: portal.session(OWNER).get(f"{portal.origin}{MOUNT}/", timeout=10).status_code == 200, what="the console")
            _fill(made, s3_store)
            yield made
        finally:
            for console in consoles:
                console.terminate()
                console.wait(20)
            portal.stop()


def _fill(centre: Centre, store: S3Store) -> None:
    """A server with a run that holds a hostile page, and a registered model; all written as a job does, from inside."""
    with centre.client() as client:
        wish = {"group": GROUP, "env_name": "wine", "bucket": store.make_bucket(), "access_key_id": store.owner.access_key}
        client.wait(client.create(**wish, secret_access_key=Secret(store.owner.secret_key)))
        server = client.server(GROUP, "wine")
        client.wait(client.set_users(GROUP, "wine", [User("job", Secret("the-password-of-jobs"))]))
    centre.url = str(server.outside_url)
    auth = ("job", "the-password-of-jobs")

    def ask(path: str, **body: Any) -> dict[str, Any]:
        answer = requests.post(f"{server.inside_url}api/2.0/mlflow/{path}", json=body, auth=auth, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    run = ask("runs/create", experiment_id="0", run_name="a run of the portal test")["run"]["info"]
    centre.run_id = run["run_id"]
    place = f"{server.inside_url}api/2.0/mlflow-artifacts/artifacts/0/{centre.run_id}/artifacts"
    for name, content in {"page.html": ATTACK.encode(), "model/MLmodel": MLMODEL, "large.bin": b"0123456789abcdef" * 2_000_000}.items():
        assert requests.put(f"{place}/{name}", data=content, auth=auth, timeout=60).status_code == 200
    ask("runs/log-metric", run_id=centre.run_id, key="rmse", value=0.78, timestamp=1)
    ask("registered-models/create", name="PortalModel")
    ask("model-versions/create", name="PortalModel", source=f"runs:/{centre.run_id}/model", run_id=centre.run_id)


@pytest.mark.parametrize("user", [OWNER, MEMBER])
def test_a_member_is_in_with_one_click(centre: Centre, user: str) -> None:
    context = centre.context(user)
    page = centre.open(context)
    info = page.evaluate("async () => (await fetch('-/info')).json()")
    assert info["principal"] == f"portal:{user}"
    assert "ticket" not in page.url
    assert not any("ticket=" in line for line in centre.portal.log.splitlines())
    context.close()


def test_run_pages_artifacts_and_registry_are_clicked_through(centre: Centre) -> None:
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
