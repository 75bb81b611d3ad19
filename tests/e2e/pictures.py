"""Draws the documentation's pictures of a run's page and of an image's answer: `python -m tests.e2e.pictures [run-page] [image-answer]`.

The run's page is that of the wine sample behind a real box and object store. The image's answer is what the walk-through's last run printed
(`make walkthrough`); its test fails where a later run says something else. A light test compares what each picture was drawn from with what
is there now.
"""

import hashlib
import html
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import CHROMIUM, CHROMIUM_OPTIONS
from tests.e2e.transcript import KEPT, MADE
from tests.support.box import MLFLOW_VERSION, PASSWORD, ROOT, USER, Box, environment, make_box
from tests.support.s3 import start_s3_store

IMAGES = ROOT / "docs" / "images"
SAMPLE = ROOT / "samples" / "wine" / "train.py"
RUN_NAME = "wine 0.1 0.9"
_TERMINAL = """\
<!doctype html><meta charset="utf-8">
<style>body{margin:0}pre{display:inline-block;margin:0;padding:18px 22px;min-width:760px;background:#14181d;color:#dbe1e8;
font:15px/1.55 "DejaVu Sans Mono",monospace}b{color:#8fd18f;font-weight:400}i{color:#ffd166;font-style:normal}</style><pre>%s</pre>"""


def drawn_from(name: str) -> str:
    """A digest of all that the picture depends on: for a run's page the sample and MLflow's version, for the answer its text."""
    parts = [SAMPLE.read_bytes(), MLFLOW_VERSION.encode()] if name == "run-page" else [KEPT.read_bytes()]
    return hashlib.sha256(b"\0".join([*parts, Path(__file__).read_bytes()])).hexdigest()


def source(name: str) -> Path:
    """Where that digest is kept."""
    return IMAGES / f"{name}.source"


def draw_run_page(browser: Browser, target: Path) -> None:
    """The page of the second of two runs."""
    store = start_s3_store()
    box = make_box(environment(), bucket=store.make_bucket(), endpoint_url=store.endpoint_url, region=store.region, idle_seconds=0)
    try:
        box.write_credentials(store.owner.access_key, store.owner.secret_key)
        box.start()
        run_id = [_trained(box, "0.5", "0.5"), _trained(box, "0.1", "0.9")][-1]
        box.api("POST", "runs/set-tag", json={"run_id": run_id, "key": "mlflow.runName", "value": RUN_NAME})
        context = browser.new_context(
            viewport={"width": 1360, "height": 900}, http_credentials={"username": USER, "password": PASSWORD}, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto(f"{box.url}/#/experiments/0/runs/{run_id}")
        # MLflow's page opens its assistant by itself, which such a server does not offer; and shows GenAI's side until told otherwise.
        page.get_by_text("Beta").locator("xpath=ancestor::*[.//button][1]").get_by_role("button").last.click()
        page.get_by_text("Model training").click()
        page.wait_for_url("**/experiments/0/runs**")
        page.goto(f"{box.url}/#/experiments/0/runs/{run_id}")
        for text in (RUN_NAME, "rmse", "l1_ratio", "ElasticnetWineModel"):
            expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Welcome to MLflow")).to_have_count(0)
        page.screenshot(path=target)
        context.close()
    finally:
        box.remove()
        store.remove()


def _trained(box: Box, *arguments: str) -> str:
    login = {"MLFLOW_TRACKING_URI": box.url, "MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    more = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "no_proxy": "*"}
    with tempfile.TemporaryDirectory() as folder:  # as a user has it, in no checkout
        argv = [box.environment / "bin" / "python", shutil.copy(SAMPLE, folder), *arguments]
        done = subprocess.run(argv, env={**login, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def draw_image_answer(browser: Browser, target: Path) -> None:
    """A terminal with the text of the last run, where there is a new one; else of the kept one."""
    if MADE.exists():
        shutil.copyfile(MADE, KEPT)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.set_content(_TERMINAL % "\n".join(_coloured(line) for line in KEPT.read_text("utf-8").splitlines()))
    page.locator("pre").screenshot(path=target)
    page.close()


def _coloured(line: str) -> str:
    text = html.escape(line)
    if line.startswith("$ "):
        return f"<b>$</b> {text[2:]}"
    return f"<i>{text}</i>" if line.startswith("{") else text


PICTURES: dict[str, Callable[[Browser, Path], None]] = {"run-page": draw_run_page, "image-answer": draw_image_answer}


def main(names: list[str]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        for name in names or PICTURES:
            PICTURES[name](browser, IMAGES / f"{name}.png")
            source(name).write_text(f"{drawn_from(name)}\n")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
