import errno
import json
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from backend.backup.make import backup
from backend.backup.restore import restore_backup
from backend.backup.servers import ServerCopies
from backend.errors import ServiceError
from backend.registry.database import Registry
from backend.registry.models import Server
from tests.service.engine.support import ADMIN, NEWER, SECRET, VERSION, Site, asking, make_database, rows_of, runs_in, schema_of


@pytest.fixture
def two(site: Site) -> Site:
    """Two servers that run, with users and runs, and a third that was deleted."""
    for env in ("one", "two", "gone"):
        make_database(site.database(site.made(env)), runs=[f"a run of {env}"])
        site.set_users(f"user-of-{env}", env=env)
        site.reconciler().reconcile_all()
    site.ask("delete", env="gone")
    site.reconciler().reconcile_all()
    return site


def empty_machine(tmp_path: Path, site: Site) -> Site:
    """Another machine, with the same settings but for where its state lies."""
    port = site.settings.port_first
    return Site(tmp_path / "other", envs_dir=site.settings.envs_dir, port_first=port)


def restored(tmp_path: Path, site: Site, directory: Path) -> Site:
    settings = type(site.settings)(
        state_dir=tmp_path / "other", envs_dir=site.settings.envs_dir, inside_host="host.example.org", port_first=site.settings.port_first
    )
    restore_backup(directory, settings)
    return empty_machine(tmp_path, site)


def test_an_empty_machine_has_everything_as_it_was(two: Site, tmp_path: Path):
    backup(two.registry, two.settings, tmp_path / "backup")
    other = restored(tmp_path, two, tmp_path / "backup")
    other.reconciler().reconcile_all()
    other.reconciler().reconcile_all()
    for env in ("one", "two"):
        before, after = two.one(env), other.one(env)
        assert (after.id, after.port, after.users, after.known_to) == (before.id, before.port, before.users, before.known_to)
        assert after.status == "running"
        assert runs_in(other.database(after)) == [f"a run of {env}"]
        config = other.boxes.directory(after.id) / "config"
        assert json.loads((config / "users.json").read_text())["users"][0]["name"] == f"user-of-{env}"
        assert SECRET in (config / "s3" / "credentials").read_text()
        for name in ("keys.json", "users.json", "s3/credentials"):
            assert (config / name).read_text() == (two.boxes.directory(before.id) / "config" / name).read_text()
        # A session that was signed out on the old machine, which nothing remembers, is none on this one either.
        files = [each.boxes.directory(before.id) / "config" / "ticket_keys.json" for each in (two, other)]
        old_keys, keys = (json.loads(file.read_text())["keys"] for file in files)
        assert len(keys) == 1
        assert keys != old_keys
    other.ask("restore", env="gone")
    other.reconciler().reconcile_all()
    assert runs_in(other.database(other.one("gone"))) == ["a run of gone"]


def test_it_says_what_is_in_it_and_is_nobody_elses(two: Site, tmp_path: Path):
    manifest = backup(two.registry, two.settings, tmp_path / "backup")
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text()) == manifest
    assert {(server["env_name"], server["deleted"], server["database"]) for server in manifest["servers"]} == {
        ("one", False, True),
        ("two", False, True),
        ("gone", True, True),
    }
    assert manifest["registry_revision"] == two.registry.revision()
    on_disk = {str(path.relative_to(tmp_path / "backup")) for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert on_disk == {*manifest["files"], "manifest.json"}
    for path in (tmp_path / "backup", *(tmp_path / "backup").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_databases_that_are_written_to_meanwhile_are_whole(two: Site, tmp_path: Path):
    stop, written = threading.Event(), []
    path = two.database(two.one("one"))

    def write() -> None:
        database = sqlite3.connect(path, timeout=20)
        while not stop.is_set():
            with database:
                database.executemany("INSERT INTO runs VALUES (?)", [("pair",), ("pair",)])
            written.append(1)
        database.close()

    writer = threading.Thread(target=write)
    writer.start()
    backup(two.registry, two.settings, tmp_path / "backup")
    stop.set()
    writer.join()
    copy = tmp_path / "backup" / "servers" / two.one("one").id / "mlflow.db"
    assert written
    assert runs_in(copy).count("pair") % 2 == 0
    assert [path.name for path in copy.parent.iterdir()] == ["mlflow.db"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], None]) -> None:
    """The action is done once in a backup, just after its function or method of that name returns for the first time."""
    holder = ServerCopies if hasattr(ServerCopies, name) else sys.modules["backend.backup.make"]
    real, waiting = getattr(holder, name), [action]

    def with_action(*arguments: Any) -> Any:
        found = real(*arguments)
        while waiting:
            waiting.pop()()
        return found

    monkeypatch.setattr(holder, name, with_action)


def changed(site: Site, what: str, env: str) -> None:
    """Asked for, done, and looked at once more: nothing is kept of what is back."""
    site.ask(what, env=env)
    site.reconciler().reconcile_all()
    site.reconciler().reconcile_all()


def test_a_server_that_is_deleted_meanwhile_is_taken_from_its_kept_copy(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = two.one("one")
    meanwhile(monkeypatch, "_servers", lambda: changed(two, "delete", "one"))
    backup(two.registry, two.settings, tmp_path / "backup")
    assert runs_in(tmp_path / "backup" / "servers" / server.id / "mlflow.db") == ["a run of one"]


@pytest.mark.parametrize("at", ["_servers", "_copy_copy"])
def test_a_server_that_is_restored_meanwhile_is_taken_from_its_box(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str):
    """The registry's copy has it as deleted: so it is in the backup, and can be restored from it."""
    gone = two.one("gone")
    meanwhile(monkeypatch, at, lambda: changed(two, "restore", "gone"))
    manifest = backup(two.registry, two.settings, tmp_path / "backup")
    assert not two.kept.exists(gone.id)
    assert {(server["env_name"], server["deleted"], server["database"]) for server in manifest["servers"]} >= {("gone", True, True)}
    other = restored(tmp_path, two, tmp_path / "backup")
    other.ask("restore", env="gone")
    other.reconciler().reconcile_all()
    assert runs_in(other.database(other.one("gone"))) == ["a run of gone"]


def test_a_server_that_is_restored_between_two_looks_is_found_by_the_next(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Deleted when its box is looked for, restored when its kept copy is."""
    server = two.one("one")
    meanwhile(monkeypatch, "_servers", lambda: changed(two, "delete", "one"))
    meanwhile(monkeypatch, "_copy_database", lambda: changed(two, "restore", "one"))
    backup(two.registry, two.settings, tmp_path / "backup")
    assert runs_in(tmp_path / "backup" / "servers" / server.id / "mlflow.db") == ["a run of one"]


@pytest.mark.parametrize("at", ["_servers", "_copy_copy", "_copy_database"])
def test_a_server_that_is_upgraded_meanwhile_has_the_version_of_its_database(
    two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
):
    def upgrade() -> None:
        two.upgrade("one")
        two.reconciler().reconcile_all()

    meanwhile(monkeypatch, at, upgrade)
    manifest = backup(two.registry, two.settings, tmp_path / "backup")
    of_one = next(server for server in manifest["servers"] if server["env_name"] == "one")
    assert (of_one["mlflow_version"], of_one["database"], manifest["failures"]) == (NEWER, True, [])
    other = restored(tmp_path, two, tmp_path / "backup")
    other.reconciler().reconcile_all()
    after = other.one("one")
    assert (after.mlflow_version, after.previous_version, schema_of(other.database(after))) == (NEWER, VERSION, NEWER)
    assert runs_in(other.database(after)) == ["a run of one"]
    rollback = other.ask("rollback", env="one")
    other.reconciler().reconcile_all()
    assert other.operation(rollback).state == "succeeded", other.operation(rollback).error
    assert (other.one("one").mlflow_version, schema_of(other.database(after))) == (VERSION, None)


def test_a_server_that_is_rolled_back_meanwhile_has_the_version_of_its_database(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    two.upgrade("one")
    two.reconciler().reconcile_all()
    meanwhile(monkeypatch, "_servers", lambda: changed(two, "rollback", "one"))
    manifest = backup(two.registry, two.settings, tmp_path / "backup")
    assert {server["mlflow_version"] for server in manifest["servers"]} == {VERSION}
    other = restored(tmp_path, two, tmp_path / "backup")
    after = other.one("one")
    assert (after.mlflow_version, after.previous_version, schema_of(other.database(after))) == (VERSION, NEWER, None)


def test_of_two_at_once_the_second_is_refused_and_harms_nothing(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A timer that overtakes itself; one by hand beside the nightly one."""
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(ServiceError) as caught:
            backup(two.registry, two.settings, tmp_path / "backup")
        refused.append(str(caught.value.params["why"]))

    meanwhile(monkeypatch, "_copy_database", second)
    manifest = backup(two.registry, two.settings, tmp_path / "backup")
    assert refused == ["another backup is being made; wait until it is done"]
    assert [server["database"] for server in manifest["servers"]] == [True, True, True]
    assert len([name for name in manifest["files"] if name.endswith("mlflow.db")]) == 3
    backup(two.registry, two.settings, tmp_path / "another")


def test_a_deleted_server_that_had_lost_its_database_is_in_it(site: Site, tmp_path: Path):
    site.database(site.made("one")).unlink()
    site.requests.delete(asking(ADMIN, "one"), damaged=True)
    site.reconciler().reconcile_all()
    manifest = backup(site.registry, site.settings, tmp_path / "backup")
    assert [(server["env_name"], server["deleted"], server["database"]) for server in manifest["servers"]] == [("one", True, False)]


def test_nothing_appears_when_it_fails(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.atomic.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1})())
    with pytest.raises(ServiceError) as caught:
        backup(two.registry, two.settings, tmp_path / "backups" / "today")
    assert caught.value.code == "disk_full"
    assert list((tmp_path / "backups").iterdir()) == []


def test_an_existing_folder_is_not_written_to(two: Site, tmp_path: Path):
    (tmp_path / "backup").mkdir()
    with pytest.raises(ServiceError) as caught:
        backup(two.registry, two.settings, tmp_path / "backup")
    assert caught.value.code == "backup_failed"


class Elsewhere(Registry):
    """A registry that is no file as far as anybody can tell: what stands for another database (test_postgres.py has a real one)."""

    path = None


def test_a_registry_that_is_no_file_is_in_it_like_any_other(two: Site, tmp_path: Path):
    manifest = backup(Elsewhere(two.settings.database_url), two.settings, tmp_path / "backup")
    on_disk = {str(path.relative_to(tmp_path / "backup")) for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert on_disk == {*manifest["files"], "manifest.json"}
    other = restored(tmp_path, two, tmp_path / "backup")
    for registry in (two.registry, other.registry):
        assert registry.revision() == registry.newest_revision()
    assert rows_of(other.registry) == rows_of(two.registry)
    other.ask("restore", env="gone")
    other.reconciler().reconcile_all()
    assert runs_in(other.database(other.one("gone"))) == ["a run of gone"]


def test_a_registry_of_an_older_form_is_not_copied_row_by_row(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Elsewhere, "revision", lambda _self: "0001")
    with pytest.raises(ServiceError, match="backup_failed") as caught:
        backup(Elsewhere(two.settings.database_url), two.settings, tmp_path / "backup")
    assert "run `aihub init`" in str(caught.value.params["why"])


def test_a_box_that_may_run_is_not_written_to(two: Site, tmp_path: Path):
    """The settings name another registry, which is empty; the state is that of a service."""
    backup(two.registry, two.settings, tmp_path / "backup")
    settings = type(two.settings)(state_dir=two.settings.state_dir, database_url=f"sqlite:///{tmp_path}/new.db", inside_host="h")
    with pytest.raises(ServiceError) as caught:
        restore_backup(tmp_path / "backup", settings)
    assert (caught.value.code, str(caught.value.params["path"]).endswith("/config")) == ("state_not_empty", True)


def test_it_is_put_back_on_an_empty_machine_only(two: Site, tmp_path: Path):
    backup(two.registry, two.settings, tmp_path / "backup")
    with pytest.raises(ServiceError) as caught:
        restore_backup(tmp_path / "backup", two.settings)
    assert caught.value.code == "state_not_empty"


def test_of_two_who_put_it_back_at_once_the_second_is_refused(two: Site, tmp_path: Path):
    backup(two.registry, two.settings, tmp_path / "backup")
    ends: list[str] = []
    both = threading.Barrier(2)

    def put_back() -> None:
        both.wait()
        try:
            restored(tmp_path, two, tmp_path / "backup").registry.close()
            ends.append("done")
        except ServiceError as error:
            ends.append(error.code)

    threads = [threading.Thread(target=put_back) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["done", "state_not_empty"]


@pytest.mark.parametrize("damage", ["changed", "missing", "format", "outside", "no manifest"])
def test_a_damaged_backup_changes_nothing(two: Site, tmp_path: Path, damage: str):
    directory = tmp_path / "backup"
    manifest = backup(two.registry, two.settings, directory)
    if damage == "changed":
        (directory / "keys.json").write_text("x")
    elif damage == "missing":
        (directory / "registry.db").unlink()
    elif damage == "no manifest":
        (directory / "manifest.json").unlink()
    else:
        manifest |= {"format": 99} if damage == "format" else {"files": {"../outside": {"size": 1, "sha256": "x"}}}
        (directory / "manifest.json").write_text(json.dumps(manifest))
    settings = type(two.settings)(state_dir=tmp_path / "other", inside_host="h")
    with pytest.raises(ServiceError) as caught:
        restore_backup(directory, settings)
    assert caught.value.code == "backup_damaged"
    assert not (tmp_path / "other").exists()


def test_one_that_was_cut_short_can_be_put_back_again(two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backup(two.registry, two.settings, tmp_path / "backup")
    settings = type(two.settings)(state_dir=tmp_path / "other", envs_dir=two.settings.envs_dir, inside_host="h")
    real, calls = restore_backup.__globals__["place_file"], []

    def place(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setitem(restore_backup.__globals__, "place_file", place)
        with pytest.raises(KeyboardInterrupt):
            restore_backup(tmp_path / "backup", settings)
    assert not (tmp_path / "other" / "registry.db").exists()
    other = restored(tmp_path, two, tmp_path / "backup")
    with other.registry.reading() as session:
        assert len(session.scalars(select(Server)).all()) == 3


@pytest.mark.parametrize("point", ["migrate", "session"])
def test_one_that_was_cut_short_beside_its_registry_can_be_put_back_again(two: Site, tmp_path: Path, point: str):
    """The disk is full, or the process killed, where the registry is converted and its ticket keys are forgotten."""
    backup(two.registry, two.settings, tmp_path / "backup")

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, point, fail)
        with pytest.raises(ServiceError, match="disk_full"):
            restored(tmp_path, two, tmp_path / "backup")
    assert not (tmp_path / "other" / "registry.db").exists()
    other = restored(tmp_path, two, tmp_path / "backup")
    with other.registry.reading() as session:
        assert session.scalars(select(Server.ticket_keys)).all() == [None, None, None], "sessions that were signed out have ended"
    assert not (tmp_path / "other" / ".registry").exists()


def test_an_upgraded_server_can_be_rolled_back_on_the_new_machine(site: Site, tmp_path: Path):
    server = site.made("one")
    make_database(site.database(server), runs=["before the upgrade"])
    site.upgrade("one")
    site.reconciler().reconcile_all()
    make_database(site.database(server), runs=["after it"])
    manifest = backup(site.registry, site.settings, tmp_path / "backup")
    assert f"previous/{server.id}/mlflow.db" in manifest["files"]
    other = restored(tmp_path, site, tmp_path / "backup")
    other.reconciler().reconcile_all()
    assert not other.orphans()
    operation = other.ask("rollback", env="one")
    other.reconciler().reconcile_all()
    assert other.operation(operation).state == "succeeded", other.operation(operation).error
    assert (other.one("one").mlflow_version, other.one("one").status) == (VERSION, "running")
    assert runs_in(other.database(server)) == ["before the upgrade"]
    assert schema_of(other.database(server)) is None


def test_a_backup_from_the_middle_of_a_swap_ends_with_one_version_and_every_run(site: Site, tmp_path: Path):
    """The database is migrated already, the registry still says the old version: the copy that it replaces makes the upgrade begin anew."""
    server = site.made("one")
    make_database(site.database(server), runs=["a run"])

    def at(point: str) -> None:
        if point == "upgrade.migrate.done":
            backup(site.registry, site.settings, tmp_path / "backup")

    site.upgrade("one")
    site.reconciler(at=at).reconcile_all()
    files = json.loads((tmp_path / "backup" / "manifest.json").read_text())["files"]
    assert f"replaced/{server.id}/mlflow.db" in files
    assert schema_of(tmp_path / "backup" / "servers" / server.id / "mlflow.db") == NEWER
    other = restored(tmp_path, site, tmp_path / "backup")
    other.reconciler().reconcile_all()
    after = other.one("one")
    assert (after.mlflow_version, after.previous_version, after.status) == (NEWER, VERSION, "running")
    assert (schema_of(other.database(after)), runs_in(other.database(after))) == (NEWER, ["a run"])
    assert (other.replaced(), other.previous()) == ([], [after.id])
