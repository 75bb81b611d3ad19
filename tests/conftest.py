"""Fixtures for every test. Heavy parts are started once per run, and only when a test asks for them."""

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from demo.ports import draw_from_share
from tests.support.ceph import Ceph, running_ceph
from tests.support.docker import Docker, running_docker
from tests.support.runtimes import runtimes
from tests.support.s3 import S3Store, start_s3_store

CHROMIUM = "/usr/bin/chromium"
# Root has no sandbox in Chromium; the rest keeps it from calling home.
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
expect.set_options(timeout=30_000)  # the page polls every two seconds, and this machine may be busy


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and what nohup starts a lost terminal: so would all that the tests start and
    end by those. Where tests run in several processes (pytest-xdist), none draws a port that another has drawn and not bound yet.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)  # goes on being ignored here, and is as usual in what is started
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # gw0, gw1, …
    if worker:
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        draw_from_share(int(worker.removeprefix("gw")) % workers, workers)  # one that stands in for a crashed one is numbered on


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed or logged may hold lone surrogates, which do not pass from a process of pytest-xdist to the one that reports."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_keyboard_interrupt() -> None:
    """An interrupt may come while a test has given root's rights away; what cleans up needs them."""
    if os.getuid() == 0:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole run (Playwright cannot be started twice in a process); open a context of your own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def s3_store() -> Iterator[S3Store]:
    """One real S3 store for the whole run. Make your own bucket; do not stop it (see `own_s3_store`)."""
    store = start_s3_store()
    yield store
    store.remove()


@pytest.fixture
def own_s3_store() -> Iterator[S3Store]:
    """A real S3 store for this test alone, to be stopped, paused and started at will (about 4 s)."""
    store = start_s3_store()
    yield store
    store.remove()


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """A real Ceph with its object gateway, for heavy tests (20 s to start). Make your own bucket, and your own users."""
    with running_ceph() as running:
        yield running


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A real Docker daemon, for heavy tests. Its containers, images and networks are shared: make your own and remove them."""
    with running_docker() as running:
        yield running


@pytest.fixture(scope="module", params=runtimes())
def containers(request: pytest.FixtureRequest) -> Docker | None:
    """A suite that asks for it runs twice: its servers are processes (None), and containers of this daemon."""
    return request.getfixturevalue("docker") if request.param == "docker" else None
