"""What an operation that failed half-way leaves: nothing that was kept is lost by the next click, and the looks clear away the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from backend.domain import BoxState
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories
from backend.files.snapshots import DatabaseCopies, PlainKeeper
from backend.registry.models import Operation, Server, now
from backend.wishes import policy
from tests.service.engine.support import ADMIN, ALICE, GROUP, NEWER, Site, asking, make_database, runs_in

HANGS = ServiceError("box_failed_to_stop", why="it hangs")
UNFIT = ServiceError("version_unfit", version=NEWER, why="GET / is answered with 500")


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
        lambda: site.requests.resize(asking(), "large"),
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


def test_the_port_of_a_lost_server_rests(site: Site):
    """Its folder is gone, so its delete fails and there is no copy, but jobs still send a password to its port."""
    server = site.made()
    shutil.rmtree(site.boxes.directory(server.id))
    site.runtime.stop_error = HANGS
    assert code_of(run(site, site.ask("delete"))) == "box_failed_to_stop"
    site.runtime.stop_error = None
    site.reconciler().reconcile_all()
    assert (site.server(), site.runtime.running()) == (None, [])
    port = site.ports()[server.port]
    assert port.server_id is None
    assert port.rests_until is not None
    assert port.rests_until > now() + timedelta(days=89)


def test_a_copy_that_has_a_database_gives_way_to_none_without(site: Site):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    kept = DatabaseCopies(site.settings.kept_dir)
    kept.make(server.id, site.boxes.directory(server.id), {})
    make_database(site.database(server), runs=["second"])
    kept.make(server.id, site.boxes.directory(server.id), {})
    site.database(server).unlink()
    kept.make(server.id, site.boxes.directory(server.id), {})
    assert runs_in(kept.folder(server.id) / "mlflow.db") == ["first", "second"]


def deleted_and_running(site: Site) -> Server:
    """A deleted server whose box runs all the same: its restore failed, and what that had started could not be stopped."""
    server = site.made()
    make_database(site.database(server), runs=["first"])
    assert code_of(run(site, site.ask("delete"))) is None
    site.runtime.born, site.runtime.stop_error = BoxState.FAILED, HANGS
    assert code_of(run(site, site.ask("restore"))) == "box_failed_to_start"
    assert (site.one().status, site.runtime.running(), site.database(server).exists()) == ("deleted", [server.id], True)
    return server


def test_a_box_that_a_failed_restore_left_is_stopped_and_removed_by_the_next_look(site: Site):
    server = deleted_and_running(site)
    site.reconciler().reconcile_all()
    assert (site.one().status, site.runtime.running()) == ("deleted", [server.id]), "it is deleted, whatever it does"
    site.runtime.stop_error = None
    site.reconciler().reconcile_all()
    assert (site.one().status, site.runtime.running(), site.boxes.ids(), site.kept.ids()) == ("deleted", [], [], [server.id])
    site.runtime.born = BoxState.AWAKE
    assert code_of(run(site, site.ask("restore"))) is None
    assert runs_in(site.database(server)) == ["first"]


def test_a_purge_by_time_forgets_no_server_whose_box_runs(site: Site):
    server = deleted_and_running(site)
    with site.registry.session() as session:
        session.get_one(Server, server.id).restorable_until = now() - timedelta(seconds=1)
    site.reconciler().reconcile_all()
    assert (site.one().status, site.runtime.running(), site.kept.ids()) == ("deleted", [server.id], [server.id])
    site.runtime.stop_error = None
    site.reconciler().reconcile_all()
    assert (site.server(), site.runtime.running(), site.boxes.ids(), site.kept.ids()) == (None, [], [], [])


def upgraded_in_vain(site: Site) -> tuple[Server, str]:
    """A server whose upgrade failed and could not be taken back; and the id of the trial's box, which runs on."""
    server = site.made()
    site.trial.error, site.trial.during = UNFIT, lambda: setattr(site.runtime, "stop_error", HANGS)
    assert code_of(run(site, site.upgrade())) == "version_unfit"
    site.trial.error = site.trial.during = None
    (trial,) = set(site.runtime.running()) - {server.id}
    assert (site.one().trial_id, len(site.ports())) == (trial, 2)
    return server, trial


def assert_it_is_alone(site: Site, server: Server) -> None:
    assert (site.one().trial_id, site.one().status) == (None, "running")
    assert (site.runtime.running(), site.boxes.ids(), list(site.ports())) == ([server.id], [server.id], [server.port])


def test_a_trial_that_could_not_be_taken_back_is_removed_by_a_look(site: Site):
    server, trial = upgraded_in_vain(site)
    site.reconciler().reconcile_all()
    assert (site.one().status, site.one().trial_id) == ("running", trial), "the server itself is well"
    site.runtime.stop_error = None
    site.reconciler().reconcile_all()
    assert_it_is_alone(site, server)


def test_the_next_upgrade_removes_what_is_left_of_the_last_ones_trial(site: Site):
    server, _trial = upgraded_in_vain(site)
    site.runtime.stop_error = None
    assert code_of(run(site, site.upgrade())) is None
    assert_it_is_alone(site, server)


def test_a_roll_back_that_fails_gives_its_trials_port_back(site: Site):
    server = site.made()
    run(site, site.upgrade())
    site.trial.look_error = UNFIT
    assert code_of(run(site, site.ask("rollback"))) == "version_unfit"
    site.reconciler().reconcile_all()
    assert_it_is_alone(site, server)


def test_a_restore_that_fails_leaves_it_deleted_when_it_was(site: Site, tmp_path: Path):
    site.made()
    run(site, site.ask("delete"))
    before = site.one()
    later = Site(tmp_path / "state", port_first=site.settings.port_first, restore_days=2)  # what was set meanwhile
    later.runtime.start_error = ServiceError("box_failed_to_start", why="no room", log=None)
    assert code_of(run(later, later.ask("restore"))) == "box_failed_to_start"
    after = later.one()
    assert (after.deleted_at, after.restorable_until, after.status) == (before.deleted_at, before.restorable_until, "deleted")


def test_a_purge_leaves_nothing_of_a_trial(site: Site):
    _server, _trial = upgraded_in_vain(site)
    delete, purge = site.ask("delete"), None
    site.runtime.stop_error = None

    def at(point: str) -> None:
        nonlocal purge
        if point == "delete.ended":  # before any look
            purge = site.ask("purge", caller=ADMIN)

    site.reconciler(at=at).reconcile_all()
    assert purge is not None
    assert (code_of(site.operation(delete)), code_of(site.operation(purge))) == (None, None)
    assert (site.server(), site.runtime.running(), site.boxes.ids()) == (None, [], [])
    assert [port.server_id for port in site.ports().values()] == [None]
