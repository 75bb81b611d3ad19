"""An object store that the servers' firewall closes is refused when it is asked for, and when its key is tried."""

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlwf.secret import Secret

from backend import versions
from backend.domain import StorageKey
from backend.errors import ServiceError
from backend.networks import egress, layout
from backend.registry.models import Operation
from backend.settings import Settings
from backend.wishes.values import StorageWish
from tests.service.edge.world import BODY, make_world
from tests.service.engine.support import Site, asking

STORE = "https://s3.example.org"
ADDRESSES = {"s3.example.org": ["10.9.1.5"], "round.example.org": ["10.9.1.5", "10.8.1.5"]}


def lookup(host: str, _port: int) -> Sequence[str]:
    if host not in ADDRESSES:
        raise OSError(1, "no such name")
    return ADDRESSES[host]


def is_open(url: str | None, *allowed: str, site: str | None = None, looked_up: bool = True) -> bool:
    settings = Settings(runtime="docker", egress=allowed, endpoint_url=site)
    try:
        egress.check_endpoint(settings, url, lookup if looked_up else None)
    except ServiceError as error:
        return error.code != "endpoint_closed"
    return True


@pytest.mark.parametrize(
    ("url", "allowed", "opened"),
    [
        (STORE, (), False),
        (STORE, ("s3.example.org:443",), True),
        ("https://S3.example.org/", ("s3.Example.org:443",), True),
        (f"{STORE}:9000", ("s3.example.org:443",), False),
        ("http://s3.example.org", ("s3.example.org:443",), False),
        (STORE, ("10.9.0.0/16:443",), True),
        (STORE, ("10.9.1.5:443",), True),
        (STORE, ("10.8.0.0/16:443", "10.9.0.0/16:80"), False),
        ("https://round.example.org", ("10.9.0.0/16:443",), False),  # packets to the other address are dropped
        ("https://round.example.org", ("10.9.0.0/16:443", "10.8.0.0/16:443"), True),
        ("https://10.9.1.5", ("10.9.0.0/16:443",), True),
        ("https://10.8.1.5", ("10.9.0.0/16:443",), False),
        ("https://[2001:db8::1]", ("0.0.0.0/0:443",), False),  # the containers have no IPv6
        ("https://no-such-name.example.org", ("10.9.0.0/16:443",), True),  # the key's trial says so
        (None, (), False),
        (None, ("s3.us-east-1.amazonaws.com:443",), True),
        (None, ("52.216.0.0/15:443",), True),
        (None, ("s3.example.org:443",), False),
    ],
)
def test_a_store_is_open_where_the_list_covers_it(url: str | None, allowed: tuple[str, ...], opened: bool) -> None:
    assert is_open(url, *allowed) is opened


def test_no_request_waits_for_a_name() -> None:
    assert is_open(STORE, "10.8.0.0/16:443", looked_up=False), "what only a look-up can tell is left to the key's trial"
    assert not is_open(STORE, "other.example.org:443", looked_up=False)


def test_the_sites_own_store_and_processes_are_open() -> None:
    assert is_open(None, site=STORE)
    assert is_open(STORE, site=STORE)
    egress.check_endpoint(Settings(runtime="process"), STORE)


def test_a_request_for_it_is_refused_with_the_settings_name_and_nothing_is_written(tmp_path: Path) -> None:
    world = make_world(tmp_path, runtime="docker", egress=("open.example.org:443",))
    versions.publish(world.service.settings, {"3.17.2": "abc123"})
    answer = world.client.post("/api/v1/servers", json={**BODY, "endpoint_url": STORE})
    assert (answer.status_code, answer.json["code"]) == (422, "endpoint_closed")
    assert answer.json["cure"] == "Name a store that is open to them, or ask the admins to add s3.example.org:443 to the setting egress."
    assert world.get("/servers")["servers"] == []
    world.made(endpoint_url="https://open.example.org")
    storage = {"access_key_id": "AKNEW", "secret_access_key": "new-secret"}
    answer = world.client.put("/api/v1/servers/gaa50000/wine/storage", json={**storage, "endpoint_url": STORE})
    assert (answer.status_code, answer.json["code"]) == (422, "endpoint_closed")
    assert world.client.put("/api/v1/servers/gaa50000/wine/storage", json=storage).status_code == 202


def test_a_name_that_leads_elsewhere_fails_the_operation(tmp_path: Path) -> None:
    site = Site(tmp_path / "state", egress=("10.0.0.0/8:9000",))
    site.create()
    site.reconciler().reconcile_all()
    site.settings = site.requests._settings = replace(site.settings, runtime="docker")
    key = StorageKey(access_key_id="AKNEW", secret_access_key=Secret("new-secret"))
    wish = StorageWish(key=key, endpoint_url="http://localhost:9000")
    asked = site.requests.set_storage(asking(), wish)
    site.reconciler().reconcile_all()
    with site.registry.reading() as session:
        ended = session.get_one(Operation, asked.id)
        assert (ended.state, ended.error["code"]) == ("failed", "endpoint_closed")
    site.registry.close()


def test_an_address_that_a_name_had_stays_for_hours_and_no_longer_than_its_entry() -> None:
    def target(address: str) -> layout.Target:
        return layout.Target(ipaddress.IPv4Network(address), 443)

    found = {"s3.example.org:443": [target("192.0.2.1")], "10.9.1.5:443": [target("10.9.1.5")]}
    first = layout.answers(found, [])
    assert [str(each) for each in first] == ['192.0.2.1 . 443 timeout 21600s comment "s3.example.org:443"']
    before = [replace(first[0], seconds=60), layout.Answer(target=target("192.0.2.9"), entry="gone.example.org:443", seconds=60)]
    found["s3.example.org:443"] = [target("192.0.2.2")]
    now = [(str(each.target), each.seconds) for each in layout.answers(found, before)]
    assert now == [("192.0.2.2 . 443", 21600), ("192.0.2.1 . 443", 60)]
    found["s3.example.org:443"] = [target("192.0.2.1")]
    assert layout.answers(found, before) == first, "seen again, it has its hours again"
