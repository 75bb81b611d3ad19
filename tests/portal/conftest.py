"""Portals of several versions before one box."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from playwright.sync_api import Browser

from tests.portal.centre import Centre, open_centre
from tests.support.box import ROOT, Box, environment, make_box
from tests.support.docker import Docker
from tests.support.portal import VERSIONS, Portal
from tests.support.s3 import S3Store
from tests.support.tickets import KEY_ID, keys_document, ticket

KEY = secrets.token_bytes(32)
USERS = {"alice": None, "bob": None, "mallory": None}


@dataclass
class Site:
    """A portal and the box behind it."""

    portal: Portal
    box: Box

    @property
    def url(self) -> str:
        return self.portal.outside(self.box.port)

    def ticket(self, user: str) -> str:
        """As the service gives one to the console."""
        return ticket(KEY, str(self.box.settings["server_id"]), user)


@pytest.fixture(scope="session")
def portals() -> Iterator[dict[str, Portal]]:
    """Those that were asked for, started once."""
    made: dict[str, Portal] = {}
    yield made
    for each in _known.values():  # one that never ran has a folder too
        each.stop()


@pytest.fixture(scope="session")
def portal_box(s3_store: S3Store) -> Iterator[Box]:
    """A box, awake, whose portals come later."""
    settings = {"bucket": s3_store.make_bucket(), "endpoint_url": s3_store.endpoint_url, "region": s3_store.region, "idle_seconds": 0}
    box = make_box(environment(), **settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.replace("ticket_keys.json", keys_document((KEY_ID, KEY)))
    portals = [portal_of(version) for version in VERSIONS]
    box.write_settings(origins=[each.origin for each in portals], console_url=f"{portals[0].origin}/pun/sys/mlflow-console")
    box.start()
    box.wait_state("awake")
    yield box
    box.remove()


_known: dict[str, Portal] = {}


def portal_of(version: str) -> Portal:
    """The portal of that version, which keeps its port whether it runs or not."""
    if version not in _known:
        kit = yaml.safe_load((ROOT / "deploy" / "ondemand" / "ood_portal.yml.example").read_text())
        _known[version] = Portal(version, USERS, directives=kit["custom_location_directives"])
    return _known[version]


@pytest.fixture(params=VERSIONS)
def site(request: pytest.FixtureRequest, portals: dict[str, Portal], portal_box: Box) -> Site:
    return _site(request.param, portals, portal_box)


@pytest.fixture
def strict_site(portals: dict[str, Portal], portal_box: Box) -> Site:
    """The newest version, which takes most away."""
    return _site(VERSIONS[-1], portals, portal_box)


def _site(version: str, portals: dict[str, Portal], box: Box) -> Site:
    if version not in portals:
        portals[version] = portal_of(version)
        portals[version].start()
    return Site(portals[version], box)


@pytest.fixture(scope="module")
def centre(containers: Docker | None, browser: Browser, s3_store: S3Store) -> Iterator[Centre]:
    """One host name for everything, as most sites have it."""
    with open_centre(browser, s3_store, containers=containers) as made:
        yield made
