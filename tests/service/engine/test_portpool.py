import socket
from datetime import timedelta

import pytest

from backend.errors import ServiceError
from backend.registry.models import Port, now
from backend.wishes import portpool
from tests.service.engine.support import Site


@pytest.fixture
def pool(site: Site) -> range:
    return range(site.settings.port_first, site.settings.port_last + 1)


def allocate(site: Site, server_id: str) -> int:
    with site.registry.session() as session:
        return portpool.allocate(session, site.settings, server_id)


def release(site: Site, port: int, days: float | None) -> None:
    with site.registry.session() as session:
        portpool.release(session, port, None if days is None else now() + timedelta(days=days))


def test_each_gets_its_own_until_none_is_left(site: Site, pool: range):
    assert sorted(allocate(site, f"s{n}") for n in pool) == list(pool)
    with pytest.raises(ServiceError) as caught:
        allocate(site, "one-more")
    assert caught.value.code == "ports_exhausted"
    assert caught.value.params == {"range": f"{pool[0]}-{pool[-1]}"}


def test_a_resting_port_is_given_to_nobody_before_its_time_and_fresh_ones_go_first(site: Site, pool: range):
    first = allocate(site, "a")
    release(site, first, days=-1)
    others = [allocate(site, f"s{n}") for n in pool[1:]]
    assert first not in others
    assert allocate(site, "last") == first, "rested out, and no fresh one is left"
    release(site, first, days=1)
    with pytest.raises(ServiceError):
        allocate(site, "too early")


def test_one_that_nobody_ever_knew_is_fresh_at_once(site: Site):
    port = allocate(site, "a")
    release(site, port, days=None)
    release(site, port, days=None)
    assert site.ports() == {}
    assert allocate(site, "b") == port


def test_a_port_that_a_stranger_holds_is_passed_over(site: Site, pool: range):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", pool[0]))
        stranger.listen()
        assert not portpool.is_bindable("127.0.0.1", pool[0])
        assert not portpool.is_bindable("0.0.0.0", pool[0])  # noqa: S104 (tried, not served)
        assert allocate(site, "a") == pool[1]
    assert portpool.is_bindable("127.0.0.1", pool[0])


def test_a_row_remembers_whose_it_is(site: Site):
    port = allocate(site, "a")
    assert site.ports()[port].server_id == "a"
    release(site, port, days=90)
    row: Port = site.ports()[port]
    assert row.server_id is None
    assert row.rests_until is not None
