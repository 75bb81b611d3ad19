"""What an operation that failed half-way leaves: nothing that was kept is lost by the next click, and the looks clear away the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend import policy
from backend.boxfiles import BoxDirectories
from backend.errors import ServiceError
from backend.registry.models import Operation, Server
from backend.snapshots import KeptCopies, PlainKeeper
from tests.service.engine.support import ALICE, GROUP, Site, make_database, runs_in


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state", ports=6)


def run(site: Site, operation: Operation) -> Operation:
    site.reconciler().reconcile_all()
    return site.operation(operation)


def code_of(operation: Operation) -> str | None:
    return None if operation.error is None else str(operation.error["code"])


class AwayKeeper(PlainKeeper):
    """While ``away``, it removes nothing that is there: the daemon went away when the folder had its other name already."""

    away = True

    def remove(self, directory: Path) -> None:
        if self.away and directory.exists():
            raise ServiceError("keeper_failed", why="it went away")
        super().remove(directory)


def half_deleted(site: Site) -> tuple[Server, AwayKeeper]:
    """A server whose delete failed when its folder was renamed: its database is in the kept copy alone."""
    server, keeper = site.made(), AwayKeeper()
    make_database(site.database(server), runs=["first"])
    site.boxes = BoxDirectories(site.settings.servers_dir, keeper)
    assert code_of(run(site, site.ask("delete"))) == "keeper_failed"
    left = site.one()
    assert (left.status, left.desired, left.deleted_at, site.database(server).exists()) == ("failed", "absent", None, False)
    return server, keeper


def test_a_delete_that_failed_half_way_lets_nothing_begin_but_itself(site: Site):
    server, keeper = half_deleted(site)
    asks: list[Callable[[], Operation]] = [
        lambda: site.ask("start"),
        lambda: site.ask("stop"),
        lambda: site.set_users("alice"),
        lambda: site.set_storage("another secret"),
        lambda: site.requests.resize(ALICE, GROUP.name, "wine", "large", request_id=None),
        site.upgrade,
    ]
    for ask in asks:
        with pytest.raises(ServiceError) as caught:
            ask()
        assert caught.value.code == "server_deleting"
    situation = policy.Situation(group_now=GROUP.gid)
    assert policy.allowed(ALICE, site.one(), settings=site.settings, situation=situation) == ["delete"]
    keeper.away = False
    site.reconciler().reconcile_all()
    assert (site.one().status, site.boxes.ids(), site.kept.ids()) == ("deleted", [], [server.id])
    assert code_of(run(site, site.ask("restore"))) is None
    assert runs_in(site.database(server)) == ["first"]


def test_a_delete_that_failed_half_way_can_be_asked_for_again(site: Site):
    server, keeper = half_deleted(site)
    assert code_of(run(site, site.ask("delete"))) == "keeper_failed"
    keeper.away = False
    assert code_of(run(site, site.ask("delete"))) is None
    assert runs_in(site.kept.folder(server.id) / "mlflow.db") == ["first"]


def test_a_copy_that_has_a_database_gives_way_to_none_without(site: Site):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    kept = KeptCopies(site.settings.kept_dir)
    kept.make(server.id, site.boxes.directory(server.id), {})
    make_database(site.database(server), runs=["second"])
    kept.make(server.id, site.boxes.directory(server.id), {})
    site.database(server).unlink()
    kept.make(server.id, site.boxes.directory(server.id), {})
    assert runs_in(kept.folder(server.id) / "mlflow.db") == ["first", "second"]
