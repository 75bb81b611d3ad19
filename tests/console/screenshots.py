"""Draws docs/images/console-*.png anew: `python -m tests.console.screenshots`.

A test compares what the pictures were drawn from with what is there now, so that they cannot grow old unseen.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from werkzeug.serving import make_server

from ood_app.app import create_app
from ood_app.settings import load
from tests.console.fake_service import NOBODY, FakeService, stamp

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
SOURCE = IMAGES / "console.source"
CHROMIUM = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PICTURES = {"en": (1280, 900), "ja": (1280, 900), "phone-en": (360, 740)}


def drawn_from() -> str:
    """A digest of all that the pictures show: page, scripts, styles, texts, and this script."""
    digest = hashlib.sha256()
    parts = [*(ROOT / "ood_app/static").rglob("*"), *(ROOT / "ood_app/templates").rglob("*"), *(ROOT / "ood_app/locale").rglob("*.po")]
    for path in sorted(path for path in [*parts, Path(__file__)] if path.is_file()):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def furnish(service: FakeService) -> None:
    """A group's life: something in each state that one meets, and a server that is being made."""
    users = {"names": ["alice", "bob"], "updated_at": stamp(timedelta(days=-2))}
    service.add("gaa50000", "wine", users=users)
    service.add("gaa50000", "llm-finetune", "sleeping", users=users)
    reason = {
        "code": "port_taken",
        "params": {"port": 21003},
        "log": ["bind() to 0.0.0.0:21003 failed (98: Address already in use)"],
    }
    service.add("gaa50001", "survey", "failed", users=users, reason=reason)
    until = stamp(timedelta(days=11))
    service.add("gaa50001", "trial", "deleted", users=users, deletion={"deleted_at": stamp(), "restorable_until": until, "kept": []})
    made = service.add("gaa50000", "speech", "creating", users=NOBODY)
    operation = service.begin("create", made)
    for _step in range(3):
        service.advance(operation)
    service.paused = True


@contextmanager
def console() -> Iterator[tuple[FakeService, str]]:
    """A fake service and the console before it: (service, address)."""
    folder = Path(tempfile.mkdtemp(prefix="pic", dir="/tmp"))  # a socket's path must be short
    service = FakeService(socket=folder / "s.sock", area=Path("/groups"))
    service.start()
    server = make_server("127.0.0.1", 0, create_app(load({"MLWF_SERVICE": f"unix://{service.socket}"})), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        service.stop()
        shutil.rmtree(folder)


def draw(browser: Browser, name: str, target: Path) -> None:
    """One picture, of a console of its own, since texts of operations are in the language of who asked for them."""
    width, height = PICTURES[name]
    language = name.rpartition("-")[2]
    with console() as (service, address):
        service.languages.append(language)
        furnish(service)
        context = browser.new_context(viewport={"width": width, "height": height}, locale=language, reduced_motion="reduce")
        page = context.new_page()
        page.goto(address)
        page.locator(".operation").wait_for()
        page.screenshot(path=target, full_page=True)
        context.close()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(CHROMIUM))
        for name in PICTURES:
            draw(browser, name, IMAGES / f"console-{name}.png")
        browser.close()
    SOURCE.write_text(f"{drawn_from()}\n")


if __name__ == "__main__":
    main()
