"""A swap of databases that fails and cannot be taken back at once: nobody's writes are lost, no server runs on half a database."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.backup.make import backup
from backend.backup.restore import restore_backup
from backend.errors import ServiceError
from backend.files.snapshots import DatabaseCopies, PlainKeeper, database_of
from backend.messages import describe_stored
from backend.plans.world import StoppingError
from backend.registry.models import Operation, Server
from backend.settings import Settings
from tests.service.engine.support import ADMIN, NEWER, VERSION, Site, asking, make_database, migrate_database, runs_in, schema_of

AWAY = ServiceError("runtime_unavailable", runtime="docker", why="it does not answer")
FULL = OSError(28, "No space left on device")
UNFIT = ServiceError("version_unfit", version=NEWER, why="GET / is answered with 500")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state", ports=6)


@pytest.fixture
def server(site: Site) -> Server:
    made = site.made()
    make_database(site.database(made), runs=["first"])
    return made


def run(site: Site, operation: Operation, at: Callable[[str], None] = lambda _point: None) -> Operation:
    site.reconciler(at=at).reconcile_all()
    return site.operation(operation)


def code_of(operation: Operation) -> str:
    assert (operation.state, operation.error is not None) == ("failed", True)
    return str((operation.error or {})["code"])


@contextmanager
def failing(name: str, server: Server, error: Exception) -> Iterator[None]:
    """That function of the product fails meanwhile, where that server's is among the files that it is given."""
    real = pkgutil.resolve_name(name)

    def fail(*arguments: Any, **options: Any) -> Any:
        if any(server.id in str(argument) for argument in arguments):
            raise error
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, fail)
        yield


def assert_the_next_upgrade_loses_nothing(site: Site, server: Server, *runs: str) -> None:
    """The server is there as it was, users log for weeks, and the next upgrade has it all."""
    site.reconciler().reconcile_all()  # sees that what was started is well
    after = site.one()
    assert (after.mlflow_version, after.status, site.runtime.running(), site.replaced()) == (VERSION, "running", [server.id], [])
    assert (runs_in(site.database(server)), schema_of(site.database(server))) == (list(runs), None)
    make_database(site.database(server), runs=["of weeks"])
    assert run(site, site.upgrade()).state == "succeeded"
    assert (site.one().mlflow_version, site.replaced()) == (NEWER, [])
    assert runs_in(site.database(server)) == sorted([*runs, "of weeks"])


def test_a_roll_back_without_room_for_a_second_database_touches_nothing(site: Site, server: Server):
    run(site, site.upgrade())
    make_database(site.database(server), runs=["since the upgrade"])
    with failing("backend.files.snapshots.place_file", server, FULL):
        assert code_of(run(site, site.ask("rollback"))) == "disk_full"
        assert (site.one().mlflow_version, site.one().status, site.runtime.running(), site.replaced()) == (
            NEWER,
            "running",
            [server.id],
            [],
        )
    make_database(site.database(server), runs=["of weeks"])
    assert run(site, site.ask("rollback")).state == "succeeded"
    assert runs_in(site.kept_previous(server) / "mlflow.db") == ["first", "of weeks", "since the upgrade"]


def test_a_daemon_that_goes_away_before_the_migration_costs_no_write(site: Site, server: Server, monkeypatch: pytest.MonkeyPatch):
    """It cannot be told whether the migration began, so the copy counts; the daemon that is back puts it in place before any start."""

    def at(point: str) -> None:
        if point == "upgrade.snapshot.noted":
            site.runtime.migrate_error = site.runtime.start_error = AWAY

    monkeypatch.setattr("backend.reconcile.reconciler.AWAY_SECONDS", 0)  # nor does it come back in time
    with failing("backend.files.snapshots.PlainKeeper.place_database", server, AWAY):
        assert code_of(run(site, site.upgrade(), at)) == "runtime_unavailable"
        assert (site.runtime.running(), site.replaced()) == ([], [server.id])
        site.runtime.migrate_error = site.runtime.start_error = None
        site.reconciler().reconcile_all()
        assert (site.runtime.running(), site.one().status, site.replaced()) == ([], "failed", [server.id]), "not beside the copy"
    site.reconciler().reconcile_all()
    assert_the_next_upgrade_loses_nothing(site, server, "first")


def test_a_migrated_database_that_cannot_be_taken_back_is_never_given_to_the_old_version(site: Site, server: Server):
    site.trial.look_error = UNFIT
    with failing("backend.files.snapshots.place_file", server, FULL):
        assert code_of(run(site, site.upgrade())) == "version_unfit"
        assert schema_of(site.database(server)) == NEWER
        assert code_of(run(site, site.ask("start"))) == "disk_full"
        assert (site.runtime.running(), site.one().status, (site.one().reason or {})["code"]) == ([], "failed", "disk_full")
    assert run(site, site.ask("start")).state == "succeeded"
    site.trial.look_error = None
    assert_the_next_upgrade_loses_nothing(site, server, "first")


def test_a_look_puts_back_what_could_not_be(site: Site, server: Server):
    site.trial.look_error = UNFIT
    with failing("backend.files.snapshots.place_file", server, FULL):
        run(site, site.upgrade())
    site.trial.look_error = None
    site.reconciler().reconcile_all()
    assert_the_next_upgrade_loses_nothing(site, server, "first")


def test_a_version_that_was_taken_and_whose_copy_could_not_be_moved_is_given_back(site: Site, server: Server):
    with failing("backend.files.snapshots.DatabaseCopies.adopt", server, OSError(5, "Input/output error")):
        assert code_of(run(site, site.upgrade())) == "internal"
        assert (site.one().mlflow_version, site.runtime.running()) == (VERSION, [server.id])
    assert_the_next_upgrade_loses_nothing(site, server, "first")


def test_a_version_that_does_not_start_and_whose_copy_cannot_be_moved_back_stays(site: Site, server: Server):
    """What was before it can be rolled back to as soon as it can be moved again."""

    def at(point: str) -> None:
        if point == "upgrade.take_version.noted":
            site.runtime.start_error = ServiceError("box_failed_to_start", why="no jobs")
            fails.enter_context(failing("backend.files.snapshots.DatabaseCopies.adopt", server, OSError(5, "Input/output error")))

    with ExitStack() as fails:
        assert code_of(run(site, site.upgrade(), at)) == "version_down"
    site.runtime.start_error = None
    assert (site.one().mlflow_version, site.replaced(), site.previous()) == (NEWER, [], [server.id])
    assert run(site, site.ask("rollback")).state == "succeeded"
    assert_the_next_upgrade_loses_nothing(site, server, "first")


def half_replaced(site: Site, server: Server) -> None:
    """The server's own database is migrated, the old version is in force, and the copy could not be put back; the server is stopped."""
    site.ask("stop")
    site.reconciler().reconcile_all()
    site.trial.look_error = UNFIT
    with failing("backend.files.snapshots.place_file", server, FULL):
        run(site, site.upgrade())
    assert (schema_of(site.database(site.one())), len(site.replaced())) == (NEWER, 1)


def test_a_deleted_server_keeps_its_whole_database(site: Site, server: Server):
    half_replaced(site, server)
    assert run(site, site.ask("delete")).state == "succeeded"
    assert (schema_of(site.kept.folder(server.id) / "mlflow.db"), site.replaced()) == (None, [])
    assert run(site, site.ask("restore")).state == "succeeded"
    assert (runs_in(site.database(server)), schema_of(site.database(server))) == (["first"], None)


def test_a_server_with_half_a_database_and_a_damaged_copy_can_be_deleted_all_the_same(site: Site, server: Server):
    half_replaced(site, server)
    (site.settings.replaced_dir / server.id / "mlflow.db").write_bytes(b"no database")
    assert code_of(run(site, site.ask("delete", caller=ADMIN))) == "snapshot_damaged"
    assert run(site, site.requests.delete(asking(ADMIN), damaged=True)).state == "succeeded"
    told = describe_stored(run(site, site.ask("restore")).error, "en") or {}
    assert told["detail"] == "The kept copy of the database is damaged: mlflow.db is missing or was changed"
    assert run(site, site.ask("purge", caller=ADMIN)).state == "succeeded"
    assert (site.server(), site.kept.ids(), site.replaced()) == (None, [], [])


def test_a_purge_forgets_what_was_replaced_too(site: Site, server: Server):
    for copies in (site.settings.previous_dir, site.settings.replaced_dir):
        DatabaseCopies(copies).make(server.id, site.boxes.directory(server.id), {"server_id": server.id, "operation_id": "another"})
    run(site, site.ask("delete"))
    DatabaseCopies(site.settings.replaced_dir).make(server.id, site.kept.folder(server.id), {"operation_id": "another"}, damaged=True)
    assert run(site, site.ask("purge", caller=ADMIN)).state == "succeeded"
    assert (site.server(), site.kept.ids(), site.previous(), site.replaced()) == (None, [], [], [])


def test_a_backup_whose_copy_is_older_than_its_database_is_put_right(site: Site, server: Server, tmp_path: Path):
    """The operation touches the server's database between the backup's copies of the one and of the other."""

    class Meanwhile(PlainKeeper):
        def copy_database(self, directory: Path, target: Path) -> None:
            migrate_database(database_of(directory), NEWER)
            super().copy_database(directory, target)

    def at(point: str) -> None:
        if point == "upgrade.snapshot.noted":
            backup(site.registry, site.settings, tmp_path / "backup", Meanwhile())
            raise StoppingError

    site.upgrade()
    site.reconciler(at=at).reconcile_all()
    settings = Settings(
        state_dir=tmp_path / "other",
        **{name: getattr(site.settings, name) for name in ("envs_dir", "inside_host", "port_first", "port_last")},
    )
    restore_backup(tmp_path / "backup", settings)
    other = Site(tmp_path / "other", envs_dir=site.settings.envs_dir, port_first=site.settings.port_first, ports=6)
    other.trial.look_error = UNFIT
    other.reconciler().reconcile_all()
    assert (other.one().mlflow_version, other.one().status, other.replaced()) == (VERSION, "running", [])
    assert (runs_in(other.database(server)), schema_of(other.database(server))) == (["first"], None)
