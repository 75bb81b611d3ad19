"""What the console weighs and how soon it can be used with 200 servers, and how long one click on Open takes.

    .venv/bin/python -m benchmarks.console --rounds 10 [--json FILE]

The page is opened by real Chromium with an empty cache, behind the real Apache of the tests' portal, from a console that answers one
request at a time, as Passenger does; the service behind it is the tests' fake one, so that the page is measured and not the service.
*Interactive* is when the list's buttons can be pressed. The least that is possible beside it: same portal and browser, one small picture.

Sign-in is measured with everything real: from the click on Open to MLflow's own page having drawn its first heading, against MLflow's page
alone, opened by who is signed in already. In turn, round by round. Needs root (consoles of other users) and Apache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlwf.client import Client, User
from mlwf.secret import Secret
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from demo.ports import free_ports
from tests.conftest import CHROMIUM, CHROMIUM_OPTIONS
from tests.console.fake_service import FakeService
from tests.support.box import until
from tests.support.portal import SESSION, VERSIONS, Portal
from tests.support.pun import MOUNT
from tests.support.runtimes import service_on
from tests.support.s3 import start_s3_store

SERVERS = 200
USER = "root"


def context_of(browser: Browser, portal: Portal) -> BrowserContext:
    made = browser.new_context(ignore_https_errors=True, viewport={"width": 1500, "height": 1000})
    made.set_default_timeout(60_000)
    made.add_cookies([{"name": SESSION, "value": USER, "url": portal.origin}])
    return made


@contextmanager
def console(portal: Portal, service: str) -> Iterator[None]:
    """The portal, and root's own console behind it."""
    port = portal.users[USER]
    settings = {"MLWF_SERVICE": service, "AIHUB_CONSOLE_PORTAL_URL": portal.origin, "SECRET_KEY_BASE": "k" * 64}
    argv = [sys.executable, "-m", "tests.support.pun", str(port)]
    process = subprocess.Popen(argv, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **settings}, stdin=subprocess.DEVNULL)
    try:
        portal.start()
        until(lambda: portal.session(USER).get(f"{portal.origin}{MOUNT}/", timeout=10).status_code == 200, what="the console")
        yield
    finally:
        process.terminate()
        process.wait(20)
        portal.stop()


def new_portal() -> Portal:
    return Portal(VERSIONS[-1], {USER: free_ports(1)[0]})


def measure_page(browser: Browser, rounds: int) -> dict[str, list[float]]:
    """Requests, bytes on the way, and seconds until the page can be used."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    fake = FakeService(socket=folder / "s.sock", area=folder / "groups")
    for number in range(SERVERS):
        fake.add("gaa50000", f"server-{number:03d}")
    fake.start()
    portal = new_portal()
    found: dict[str, list[float]] = {"requests": [], "KB": [], "interactive, s": [], "one small picture, s": []}
    try:
        with console(portal, f"unix://{fake.socket}"):
            for _round in range(rounds):
                requests, size, seconds = open_list(browser, portal)
                found["requests"].append(requests)
                found["KB"].append(size / 1000)
                found["interactive, s"].append(seconds)
                found["one small picture, s"].append(open_bare(browser, portal))
    finally:
        fake.stop()
        shutil.rmtree(folder)
    return found


def open_list(browser: Browser, portal: Portal) -> tuple[int, int, float]:
    context = context_of(browser, portal)
    page = context.new_page()
    sizes: list[int] = []
    page.on(
        "requestfinished", lambda request: sizes.append(sum(request.sizes()[name] for name in ("responseBodySize", "responseHeadersSize")))
    )
    began = time.perf_counter()
    page.goto(f"{portal.origin}{MOUNT}/", wait_until="commit")
    page.wait_for_function(
        f"() => document.querySelectorAll('tr.server').length === {SERVERS} && document.querySelector('tr.server button:enabled')"
    )
    seconds = time.perf_counter() - began
    page.wait_for_load_state("networkidle")
    context.close()
    return len(sizes), sum(sizes), seconds


def open_bare(browser: Browser, portal: Portal) -> float:
    """What portal, TLS and browser take by themselves: a small file of the same console."""
    context = context_of(browser, portal)
    page = context.new_page()
    began = time.perf_counter()
    page.goto(f"{portal.origin}{MOUNT}/static/x/icon.svg", wait_until="load")
    seconds = time.perf_counter() - began
    context.close()
    return seconds


def measure_sign_in(browser: Browser, rounds: int) -> dict[str, list[float]]:
    """Seconds from the click on Open to MLflow's page, and to the same page for who is signed in already."""
    store, portal = start_s3_store(), new_portal()
    found: dict[str, list[float]] = {"Open to MLflow's page, s": [], "MLflow's page alone, s": []}
    try:
        with service_on(None, store, portal_url=portal.origin, idle_seconds=0) as live:
            with live.client() as client:
                make_server(client, store.make_bucket(), store.owner.access_key, store.owner.secret_key)
            with console(portal, f"unix://{live.socket}"):
                for number in range(rounds + 1):
                    clicked, alone = sign_in(browser, portal)
                    if number:  # the first finds a cold MLflow
                        found["Open to MLflow's page, s"].append(clicked)
                        found["MLflow's page alone, s"].append(alone)
    finally:
        store.remove()
    return found


def make_server(client: Client, bucket: str, access_key: str, secret_key: str) -> None:
    asked = client.create(group="root", env_name="wine", bucket=bucket, access_key_id=access_key, secret_access_key=Secret(secret_key))
    client.wait(asked)
    client.wait(client.set_users("root", "wine", [User("alice", Secret("correct horse battery staple"))]))


def sign_in(browser: Browser, portal: Portal) -> tuple[float, float]:
    context = context_of(browser, portal)
    page = context.new_page()
    page.goto(f"{portal.origin}{MOUNT}/")
    link = page.get_by_role("link", name="Open")
    link.wait_for()
    began = time.perf_counter()
    with context.expect_page() as opened:
        link.click()
    opened.value.get_by_text("Experiments").first.wait_for()
    clicked = time.perf_counter() - began
    address = opened.value.url
    opened.value.close()
    again = context.new_page()
    began = time.perf_counter()
    again.goto(address, wait_until="commit")
    again.get_by_text("Experiments").first.wait_for()
    alone = time.perf_counter() - began
    context.close()
    return clicked, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        found = {**measure_page(browser, chosen.rounds), **measure_sign_in(browser, chosen.rounds)}
        browser.close()
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]")
    pairs = zip(found["Open to MLflow's page, s"], found["MLflow's page alone, s"], strict=True)
    print(f"what signing in adds, s: {statistics.median(one - other for one, other in pairs):.2f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
