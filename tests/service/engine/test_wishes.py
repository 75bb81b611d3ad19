"""Whether a server is to run is what somebody asked for, not what was seen of it: an operation that fails leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.domain import BoxState, Observation
from backend.errors import ServiceError
from backend.registry.models import Operation
from tests.service.engine.support import Site, asking

AWAY = ServiceError("runtime_unavailable", runtime="docker", why="it does not answer")
ASKED: dict[str, Callable[[Site], Operation]] = {
    "delete": lambda site: site.ask("delete"),
    "upgrade": lambda site: site.upgrade(),
    "resize": lambda site: site.requests.resize(asking(), "large"),
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state", ports=6)


def stopped(site: Site) -> None:
    site.made()
    site.ask("stop")
    site.reconciler().reconcile_all()


@pytest.mark.parametrize("what", ASKED)
def test_a_stopped_server_stays_stopped_under_a_daemon_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch, what: str):
    stopped(site)
    started = len(site.runtime.starts)

    def away(**_arguments: object) -> None:
        raise AWAY

    with monkeypatch.context() as patch:
        patch.setattr(site.runtime, "observe", lambda **_arguments: Observation(state=BoxState.SILENT, detail=str(AWAY)))
        patch.setattr(site.runtime, "stop", away)
        patch.setattr("backend.reconcile.reconciler.AWAY_SECONDS", 0)  # nor in time
        operation = ASKED[what](site)
        site.reconciler().reconcile_all()
        assert site.operation(operation).error is not None
        assert site.one().desired == "stopped"
    for _look in range(2):
        site.reconciler().reconcile_all()
    assert (site.one().status, site.one().desired, len(site.runtime.starts)) == ("stopped", "stopped", started)


def test_a_crashed_server_whose_delete_fails_runs_again(site: Site, monkeypatch: pytest.MonkeyPatch):
    server = site.made()
    operation = site.ask("delete")
    site.runtime.kill(server.id)
    with monkeypatch.context() as patch:
        patch.setattr("backend.atomic.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1})())
        site.reconciler().reconcile_all()
    assert (site.operation(operation).error or {})["code"] == "disk_full"
    for _look in range(2):
        site.reconciler().reconcile_all()
    assert (site.one().desired, site.one().status, site.runtime.running()) == ("running", "running", [server.id])


@pytest.mark.parametrize("what", ["upgrade", "resize"])
def test_a_crashed_server_runs_when_it_is_upgraded_or_resized(site: Site, what: str):
    server = site.made()
    operation = ASKED[what](site)
    site.runtime.kill(server.id)
    site.reconciler().reconcile_all()
    assert site.operation(operation).state == "succeeded", site.operation(operation).error
    assert (site.one().desired, site.one().status, site.runtime.running()) == ("running", "running", [server.id])
