"""What `aihub check` says of the containers' networks."""

from dataclasses import replace
from pathlib import Path

import pytest

from backend.checks import containers as container_checks
from backend.settings import Settings
from tests.service.engine.support import Site


def checked(settings: Settings) -> tuple[str, str, str]:
    (found,) = container_checks.addresses(settings)
    return found.state, found.detail, found.cure


def test_check_says_for_how_many_servers_the_networks_have_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = Site(tmp_path / "state")
    settings = replace(site.settings, runtime="docker", gate_network="10.9.0.0/29", mlflow_network="10.9.1.0/30")
    ports = settings.port_last - settings.port_first + 1
    assert checked(settings) == ("ok", f"mlflow_network (10.9.1.0/30) has room for 1 servers; there are 0, and ports for {ports}", "")
    site.create()
    state, detail, cure = checked(settings)
    assert (state, "there are 1," in detail, "set mlflow_network to a wider one" in cure) == ("warning", True, True)
    wide = replace(settings, mlflow_network="10.10.0.0/16")
    assert checked(wide) == ("ok", f"gate_network (10.9.0.0/29) has room for 5 servers; there are 1, and ports for {ports}", "")
    assert "has room for 1023 servers" in checked(replace(wide, gate_network="10.9.0.0/16"))[1]
    monkeypatch.setattr(container_checks, "BRIDGE", 1)
    state, _detail, cure = checked(wide)
    assert (state, "on another host" in cure) == ("warning", True)
    assert list(container_checks.addresses(site.settings)) == []
    site.registry.close()


def test_check_says_that_containers_have_no_dns_server(tmp_path: Path):
    containers = Settings(
        state_dir=tmp_path, runtime="docker", resolvers=(), endpoint_url="http://192.0.2.1:9000", egress=("10.9.0.0/16:443",)
    )
    for changes, state in (
        ({}, "ok"),
        ({"endpoint_url": "https://s3.example.org"}, "failure"),
        ({"egress": ("db.example.org:5432",)}, "failure"),
        ({"egress": ("db.example.org:5432",), "resolvers": ("192.0.2.53",)}, "ok"),
    ):
        (found,) = container_checks.resolvers(replace(containers, **changes))
        assert (found.state, bool(found.cure)) == (state, state == "failure")
    assert list(container_checks.resolvers(replace(containers, runtime="process"))) == []
