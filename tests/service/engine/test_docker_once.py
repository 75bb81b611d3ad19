"""A one-off container whose end is not learned: not ready in time is one thing, a daemon that is gone another."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from backend.errors import ServiceError
from backend.runtimes.containers import ContainerRuntime, Site
from backend.runtimes.docker import UNREADY, Engine


class Daemon:
    """What ``Engine.run`` uses of the SDK's client; the wait ends with that error."""

    def __init__(self, error: Exception) -> None:
        self.removed: list[str] = []
        self.api = SimpleNamespace(
            start=lambda _container: None,
            wait=lambda _container, timeout: self._fail(error, timeout),
            logs=lambda _container, tail: b"what it said",
            remove_container=lambda container, **_how: self.removed.append(container),
        )
        self.info = lambda: {"SecurityOptions": []}
        self.labels: dict[str, str] = {}
        self.containers = SimpleNamespace(create=self._create)
        self.api.containers = lambda **_which: [{"Id": "of-a-killed-service", "Labels": {"org.aihub.writes": "k3v9x2m7q4ab"}}]

    def _create(self, *, labels: dict[str, str], **_how: object) -> SimpleNamespace:
        self.labels = labels
        return SimpleNamespace(id="once")

    @staticmethod
    def _fail(error: Exception, timeout: float) -> dict[str, int]:
        assert timeout == 7
        raise error


def run(error: Exception) -> tuple[Daemon, Any]:
    daemon, engine = Daemon(error), Engine(address="unix:///nowhere", install="test", timeout=1)
    engine._made = daemon  # in place of a daemon that cannot be told to go away at this very moment
    return daemon, lambda **whose: engine.run("test", {"image": "x"}, seconds=7, **whose)


def test_one_that_takes_too_long_has_a_status_and_its_words() -> None:
    daemon, begin = run(requests.ReadTimeout("UnixHTTPConnectionPool: Read timed out. (read timeout=7)"))
    assert begin() == (124, "what it said")
    assert daemon.removed == ["once"]


def test_a_migration_that_takes_too_long_is_said_to(tmp_path: Path) -> None:
    """Whatever was its last word: that of one step is no reason."""
    (tmp_path / "data").mkdir()
    (tmp_path / "run").mkdir()
    engine = SimpleNamespace(image_id=lambda _name: "sha256:abc", run=lambda *_what, **_how: (UNREADY, "INFO Running upgrade a -> b"))
    site = Site(install="test", image="box:{version}", listen_address="127.0.0.1", networks={})
    runtime = ContainerRuntime(engine=engine, site=site)  # type: ignore[arg-type]
    with pytest.raises(ServiceError) as caught:
        runtime.migrate(server_id="k3v9x2m7q4ab", directory=tmp_path, mlflow_version="3.17.2", timeout=3600.0)
    told = {"version": "3.17.2", "why": "it did not end within 3600 seconds"}
    assert (caught.value.code, caught.value.params) == ("migration_failed", told)
    assert caught.value.log == "INFO Running upgrade a -> b"


def test_a_daemon_that_goes_away_is_the_failure() -> None:
    daemon, begin = run(requests.ConnectionError("Connection aborted."))
    with pytest.raises(ServiceError) as caught:
        begin()
    assert caught.value.code == "runtime_unavailable"
    assert daemon.removed == ["once"]


def test_one_that_changes_a_database_comes_after_what_a_killed_service_left() -> None:
    daemon, begin = run(requests.ReadTimeout("UnixHTTPConnectionPool: Read timed out. (read timeout=7)"))
    begin(writes="k3v9x2m7q4ab")
    assert daemon.removed == ["of-a-killed-service", "once"]
    assert daemon.labels == {"org.aihub.install": "test", "org.aihub.once": "test", "org.aihub.writes": "k3v9x2m7q4ab"}
    daemon, begin = run(requests.ConnectionError("Connection aborted."))
    with pytest.raises(ServiceError):
        begin(writes="another")
    assert daemon.removed == ["once"]


OURS = {"subnet": "10.213.0.0/22", "labels": {"org.aihub.install": "test"}, "driver": "bridge"}


@pytest.mark.parametrize(
    ("subnet", "labels", "well"),
    [
        ("10.213.0.0/22", {"org.aihub.install": "test"}, True),
        ("10.213.0.0/22", {}, False),  # of somebody who did not keep containers apart on it
        ("10.213.0.0/22", None, False),
        ("10.99.0.0/22", {"org.aihub.install": "test"}, False),  # from before the setting was changed
    ],
)
def test_a_network_of_our_name_is_the_one_that_is_wanted(subnet: str, labels: dict[str, str] | None, well: bool) -> None:
    attrs = {"IPAM": {"Config": [{"Subnet": subnet, "Gateway": "10.213.0.1"}]}, "Labels": labels}
    daemon = SimpleNamespace(networks=SimpleNamespace(list=lambda **_names: [SimpleNamespace(name="aihub-test-gate", attrs=attrs)]))
    engine = Engine(address="unix:///nowhere", install="test", timeout=1)
    engine._made = daemon
    if well:
        engine.ensure_networks({"aihub-test-gate": OURS})
        return
    with pytest.raises(ServiceError) as caught:
        engine.ensure_networks({"aihub-test-gate": OURS})
    assert (caught.value.code, caught.value.params) == ("network_differs", {"network": "aihub-test-gate", "subnet": "10.213.0.0/22"})
