"""Fixtures for every test. Heavy parts are started once per run, and only when a test asks for them."""

import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.ceph import Ceph, running_ceph
from tests.support.docker import Docker, running_docker
from tests.support.s3 import S3Store, start_s3_store

CHROMIUM = "/usr/bin/chromium"
# Root has no sandbox in Chromium; the rest keeps it from calling home.
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would everything that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
