"""A page of somebody else's behind the portal: what it can do with its visitor's session, what stops it, and what undoes it.

The threat model (docs/explanation/threat-model.md) says the same; a row there that changes fails here.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml
from playwright.sync_api import Browser, BrowserContext, Page

from tests.ood.rendering import ROOT
from tests.portal.centre import GROUP, JOB, OWNER, Centre, open_centre, portal_session
from tests.support.box import until
from tests.support.hostile import Hostile, hostile_server
from tests.support.portal import VERSIONS, Portal
from tests.support.pun import MOUNT
from tests.support.s3 import S3Store

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.box,
    pytest.mark.browser,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts consoles of several users"),
]
SERVER = f"{MOUNT}/api/servers/{GROUP}/wine"
OPEN = f"{MOUNT}/open/{GROUP}/wine"
TOKENS = f"{MOUNT}/tokens/{GROUP}/wine"
SCRIPT = """
const token = async () => (await (await fetch('MOUNT/')).text()).split('name="csrf-token" content="')[1].split('"')[0];
const json = {'Content-Type': 'application/json'};
const send = async (method, path, body) => {
  const headers = {'X-CSRFToken': await token(), ...json};
  return (await fetch(path, {method, headers, body: JSON.stringify(body)})).status;
};
const form = async (path, fields) => {
  const headers = {'Content-Type': 'application/x-www-form-urlencoded'};
  const answer = await fetch(path, {method: 'POST', headers, body: new URLSearchParams({csrf_token: await token(), ...fields})});
  return [answer.status, await answer.text()];
};
/* Looks into a window again and again until it is gone, or for three seconds. */
const watch = async (other) => {
  let seen = '';
  for (const end = Date.now() + 3000; Date.now() < end && !other.closed; await new Promise(done => setTimeout(done))) {
    try { seen += other.document.documentElement.outerHTML; } catch {}
  }
  return seen;
};
""".replace("MOUNT", MOUNT)
"""What each of the page's scripts has at hand."""


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with hostile_server() as made:
        yield made


@pytest.fixture
def visitor(centre: Centre) -> Iterator[BrowserContext]:
    context = centre.context(OWNER)
    yield context
    context.close()


@pytest.fixture
def page(centre: Centre, hostile: Hostile, visitor: BrowserContext) -> Page:
    """The page, before its visitor, who is logged in to the portal and to no server."""
    made = visitor.new_page()
    made.goto(centre.portal.origin + hostile.path())
    return made


def run(page: Page, script: str) -> Any:
    """What the page's own script makes of it."""
    return page.evaluate(f"async () => {{ {SCRIPT} {script} }}")


def audit(centre: Centre) -> list[tuple[str, str]]:
    entries = json.loads(centre.live.aihub("audit", "--json").stdout)
    return [(entry["user"], entry["action"]) for entry in entries]


def lines_of(centre: Centre, word: str) -> list[str]:
    """The lines of the server's access log with that word, once there is one: nginx writes it after its answer."""
    (log,) = centre.live.state.glob("servers/*/log/access.log")
    return list(until(lambda: [line for line in log.read_text().splitlines() if word in line], what=f"{word} in the access log"))


def ended(centre: Centre, status: str) -> bool:
    with centre.client() as client:
        server = client.servers(all=True, deleted=True)[0]
        return server.status == status and server.operation is None


def test_the_tokens_of_the_page_do_not_stop_it_and_each_action_is_undone(centre: Centre, page: Page) -> None:
    assert run(page, f"return (await fetch('{MOUNT}/api/state')).status;") == 200
    assert run(page, f"return send('POST', '{SERVER}/stop', {{}});") == 202
    until(lambda: ended(centre, "stopped"), what="the stop")
    assert (OWNER, "stop") in audit(centre), "by the visitor's name"
    with centre.client() as client:
        client.wait(client.start(GROUP, "wine"))
    assert run(page, f"return send('DELETE', '{SERVER}', {{typed: 'wine'}});") == 202
    until(lambda: ended(centre, "deleted"), what="the delete")
    with centre.client() as client:
        client.wait(client.restore(GROUP, "wine"))
        inside = client.server(GROUP, "wine").inside_url
    answer = requests.get(f"{inside}api/2.0/mlflow/runs/get", params={"run_id": centre.run_id}, auth=JOB, timeout=60)
    assert answer.json()["run"]["info"]["run_name"] == "a run of the portal test"
    assert run(page, f"return send('POST', '{MOUNT}/api/jobs', {{task: 'export'}});") == 404, "no work on the portal's host"


def test_no_script_of_it_gets_a_ticket_or_a_tokens_text(centre: Centre, hostile: Hostile, page: Page) -> None:
    got = [
        run(page, f"return (await fetch('{OPEN}')).text();"),
        *run(page, f"return form('{OPEN}', {{}});"),
        *run(page, f"return form('{TOKENS}', {{name: 'x', days: '1'}});"),
    ]
    assert (got[1], got[3]) == (403, 403)
    framed = """
        const frame = document.createElement('iframe');
        const loaded = new Promise(done => frame.addEventListener('load', done));
        frame.src = '%s';
        document.body.append(frame);
        await loaded;
        try { return frame.contentDocument ? frame.contentDocument.documentElement.outerHTML : ''; } catch { return ''; }"""
    got.append(run(page, framed % OPEN))
    for policy in ("unsafe-none", "same-origin", "same-origin-allow-popups", "noopener-allow-popups"):
        hostile.pages["/opener"] = ({"Cross-Origin-Opener-Policy": policy}, "<!doctype html><p>an opener")
        page.goto(centre.portal.origin + hostile.path("opener"))
        got.append(run(page, f"return watch(window.open('{OPEN}'));"))
        posted = """
            const other = window.open('about:blank', 'other');
            const made = document.createElement('form');
            Object.assign(made, {method: 'post', action: '%s', target: 'other'});
            for (const [name, value] of Object.entries({csrf_token: await token(), name: 'x', days: '1'}))
                made.append(Object.assign(document.createElement('input'), {name, value}));
            document.body.append(made);
            made.submit();
            return watch(other);"""
        got.append(run(page, posted % TOKENS))
        led = """
            const other = window.open('%s/');
            for (const end = Date.now() + 3000; Date.now() < end && !other.closed; await new Promise(done => setTimeout(done))) {
                try { if (other.document.getElementById('servers')) { other.location = '%s'; break; } } catch {}
            }
            return watch(other);"""
        got.append(run(page, led % (MOUNT, OPEN)))
    for text in got:
        assert 'name="ticket"' not in str(text)
        assert "aihub_" not in str(text).replace("aihub_console", "")
    # The windows did what they show to the visitor alone, and the list has it.
    with centre.client() as client:
        made = client.tokens(GROUP, "wine")
        assert {token.user for token in made} == {OWNER}
        for token in made:
            client.revoke_token(GROUP, "wine", token.id)


def test_it_reads_no_cookie_and_uses_a_servers_while_its_visitor_is_signed_in(centre: Centre, hostile: Hostile, page: Page) -> None:
    info = f"return (await fetch('{centre.url}-/info')).status;"
    assert run(page, info) == 401
    signed_in = centre.open(page.context)
    hostile.heard.clear()
    page.reload()
    assert run(page, "return document.cookie;") == ""
    assert [each.get("Cookie", "") for each in hostile.heard] == [""], "neither the portal's session nor a server's or the console's cookie"
    assert run(page, info) == 200
    body = json.dumps({"run_id": centre.run_id, "key": "k", "value": "v"})
    tag = f"""return (await fetch('{centre.url}ajax-api/2.0/mlflow/runs/set-tag',
        {{method: 'POST', headers: json, body: '{body}'}})).status;"""
    assert run(page, tag) == 200, "the page shares the portal's origin"
    assert f"portal:{OWNER}" in lines_of(centre, "set-tag")[0]
    signed_in.goto(f"{centre.url}-/sign-in")
    with signed_in.expect_navigation():  # the load state alone may be the old page's
        signed_in.get_by_role("button", name="Sign out").click()
    assert (run(page, info), run(page, tag)) == (401, 401)


@pytest.fixture(scope="module")
def lenient_browser(browser: Browser) -> Iterator[Browser]:
    """One that takes a test's certificate for a service worker too."""
    options = ["--no-sandbox", "--disable-background-networking", "--no-first-run", "--ignore-certificate-errors"]
    made = browser.browser_type.launch(executable_path="/usr/bin/chromium", args=options)
    yield made
    made.close()


WORKER = """
self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', event => event.waitUntil((async () => {
  await self.registration.navigationPreload.enable();
  await self.clients.claim();
})()));
self.addEventListener('fetch', event => {
  if (event.request.mode !== 'navigate' || !event.request.url.includes('/open/')) return;
  event.respondWith((async () => {
    const preloaded = await (await event.preloadResponse).text();
    const again = await (await fetch(event.request)).text();
    return new Response(JSON.stringify([preloaded, again]));
  })());
});
"""
REGISTER = """
try {
  await navigator.serviceWorker.register(WORKER, {scope: '/'});
  const workers = navigator.serviceWorker;
  await new Promise(done => workers.controller ? done() : workers.addEventListener('controllerchange', done));
  return 'the whole portal';
} catch (error) { return error.name; }"""


def test_a_service_worker_of_it_gets_no_ticket_either(centre: Centre, hostile: Hostile, lenient_browser: Browser) -> None:
    """On a portal without the site kit's lines it comes between every page of the portal and its reader."""
    hostile.pages["/worker.js"] = ({"Content-Type": "text/javascript", "Service-Worker-Allowed": "/"}, WORKER)
    context = lenient_browser.new_context(ignore_https_errors=True)
    context.add_cookies([portal_session(OWNER, centre.portal)])
    page = context.new_page()
    page.goto(centre.portal.origin + hostile.path())
    assert run(page, REGISTER.replace("WORKER", f"'{hostile.path('worker.js')}'")) == "the whole portal"
    before = centre.live.log.count("/tickets 201")
    page.goto(centre.portal.origin + OPEN)
    preloaded, again = json.loads(page.locator("body").inner_text())
    assert "csrf_token" in preloaded + again, "a page with a button"
    assert 'name="ticket"' not in preloaded + again
    assert centre.live.log.count("/tickets 201") == before
    context.close()


def test_with_the_site_kits_lines_its_service_worker_stays_in_its_own_folder(hostile: Hostile, lenient_browser: Browser) -> None:
    lines = yaml.safe_load((ROOT / "deploy" / "ondemand" / "ood_portal.yml.example").read_text())["custom_location_directives"]
    hostile.pages["/worker.js"] = ({"Content-Type": "text/javascript", "Service-Worker-Allowed": "/"}, WORKER)
    portal = Portal(VERSIONS[-1], {OWNER: None}, directives=lines)
    try:
        portal.start()
        context = lenient_browser.new_context(ignore_https_errors=True)
        context.add_cookies([portal_session(OWNER, portal)])
        page = context.new_page()
        page.goto(portal.origin + hostile.path())
        register = REGISTER.replace("WORKER", f"'{hostile.path('worker.js')}'")
        assert run(page, register) == "SecurityError"
        own = register.replace("scope: '/'", f"scope: '{hostile.path('')}'")
        assert run(page, own) == "the whole portal", "what other apps behind the portal need goes on"
        context.close()
    finally:
        portal.stop()


@pytest.fixture(scope="module")
def apart(browser: Browser, s3_store: S3Store, hostile: Hostile) -> Iterator[tuple[Centre, Portal]]:
    """Console and tracking servers on a host name of their own, of the portal's site; and the portal, where the hostile page is."""
    portal = Portal(VERSIONS[-1], {OWNER: None}, host="portal.example.localhost", ports=str(hostile.port))
    try:
        portal.start()
        with open_centre(browser, s3_store, host="mlflow.example.localhost", ports=rf"(?!{hostile.port}\b)\d+") as centre:
            yield centre, portal
    finally:
        portal.stop()


def test_on_another_host_name_it_reads_and_changes_nothing(apart: tuple[Centre, Portal], hostile: Hostile) -> None:
    centre, portal = apart
    context = centre.context(OWNER)
    context.add_cookies([portal_session(OWNER, portal)])
    server = centre.open(context)  # its visitor is signed in to the server, as far as that can help
    assert server.evaluate("async () => (await (await fetch('-/info')).json()).principal") == f"portal:{OWNER}"
    page = context.new_page()
    page.goto(portal.origin + hostile.path())
    tried = """
        const opaque = async (address, options) => {
            try { return (await fetch(address, {credentials: 'include', ...options})).status; } catch { return 'refused'; }
        };
        const blind = {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}};
        return [
            await opaque('CONSOLE/'), await opaque('CONSOLE/api/state'), await opaque('SERVER-/info'),
            await opaque('STOP', {...blind, body: '{}'}),
            await opaque('SERVERajax-api/2.0/mlflow/runs/set-tag', {...blind, body: JSON.stringify({run_id: 'RUN', key: 'k', value: 'v'})}),
        ];"""
    console = centre.portal.origin + MOUNT
    for name, value in {
        "CONSOLE": console,
        "SERVER": centre.url,
        "STOP": centre.portal.origin + SERVER + "/stop",
        "RUN": centre.run_id,
    }.items():
        tried = tried.replace(name, value)
    assert run(page, tried) == ["refused"] * 4 + [0], "no answer can be read, whether it was sent or not"
    assert (OWNER, "stop") not in audit(centre)
    (line,) = lines_of(centre, "set-tag")
    assert " 403 " in line
    seen = run(page, f"return watch(window.open('{centre.portal.origin}{OPEN}'));")
    assert seen.replace("<html><head></head><body></body></html>", "") == ""
    answer = page.goto(centre.portal.origin + hostile.path())
    assert answer is not None
    assert (answer.status, "a page" in page.content()) == (403, False), "the servers' host name leads to them alone"
    context.close()
