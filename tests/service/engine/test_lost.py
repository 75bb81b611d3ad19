"""A database that is not where it was, as when the servers' disk is not mounted: nothing takes its place, and it is back with the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backend.backup.make import backup
from backend.domain import BoxState
from backend.errors import ServiceError
from backend.registry.models import Operation, Server
from tests.service.engine.support import ADMIN, Site, asking, make_database, runs_in


@pytest.fixture
def server(site: Site) -> Server:
    made = site.made()
    make_database(site.database(made), runs=["first"])
    return made


def run(site: Site, operation: Operation) -> str | None:
    site.reconciler().reconcile_all()
    error = site.operation(operation).error
    return None if error is None else str(error["code"])


def boot_without_the_disk(site: Site) -> None:
    for server_id in list(site.runtime.boxes):
        site.runtime.kill(server_id)
    site.settings.servers_dir.rename(site.settings.state_dir / "disk")
    site.settings.servers_dir.mkdir()


def mount(site: Site) -> None:
    shutil.rmtree(site.settings.servers_dir)
    (site.settings.state_dir / "disk").rename(site.settings.servers_dir)


def test_no_server_is_started_in_its_place(site: Site, server: Server):
    boot_without_the_disk(site)
    site.reconciler().reconcile_all()
    seen = site.one()
    assert (seen.status, seen.reason["code"], site.runtime.running(), site.database(server).exists()) == (
        "failed",
        "database_lost",
        [],
        False,
    )
    assert run(site, site.ask("start")) == "database_lost"
    mount(site)
    site.reconciler().reconcile_all()
    site.reconciler().reconcile_all()
    assert (site.one().status, site.one().reason, runs_in(site.database(server))) == ("running", None, ["first"])


def test_a_delete_keeps_no_empty_copy_in_its_place(site: Site, server: Server):
    """Else the database, when it is back, would be what is left of a deleted server."""
    boot_without_the_disk(site)
    site.reconciler().reconcile_all()
    assert run(site, site.ask("delete")) == "snapshot_failed"
    mount(site)
    site.reconciler().reconcile_all()
    assert (site.one().deleted_at, runs_in(site.database(server))) == (None, ["first"])
    assert run(site, site.ask("delete")) is None
    assert runs_in(site.kept.folder(server.id) / "mlflow.db") == ["first"]


def test_an_admin_can_delete_a_server_whose_database_is_lost_for_good(site: Site, server: Server):
    site.database(server).unlink()
    assert run(site, site.ask("delete")) == "snapshot_failed"
    assert run(site, site.requests.delete(asking(ADMIN), damaged=True)) is None
    assert run(site, site.requests.restore(asking())) == "database_lost"
    assert (site.one().status, site.runtime.running()) == ("deleted", [])


def test_a_backup_says_what_it_lacks(site: Site, server: Server, tmp_path: Path):
    """Whoever keeps the last good ones would throw the database away with the oldest of them."""
    boot_without_the_disk(site)
    failures = backup(site.registry, site.settings, tmp_path / "backup")["failures"]
    assert [(each["env_name"], each["why"]) for each in failures] == [("wine", f"its database is not there ({site.database(server)})")]


def test_a_server_that_is_being_made_lacks_nothing(site: Site, tmp_path: Path):
    site.create()
    assert backup(site.registry, site.settings, tmp_path / "backup")["failures"] == []


def test_what_a_failed_create_left_is_deleted_for_good(site: Site):
    """There is nothing to restore: no user ever knew it."""
    site.runtime.born, site.runtime.stop_error = BoxState.FAILED, ServiceError("box_failed_to_stop", why="it hangs")
    assert run(site, site.create()) == "box_failed_to_start"
    assert (site.one().status, site.one().desired) == ("failed", "absent")
    site.runtime.stop_error = None
    assert run(site, site.ask("delete")) is None
    site.assert_nothing_left()
