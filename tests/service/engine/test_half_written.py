"""A database that a copy replaces, after a power cut in the middle of a transaction: what lies beside the old one never meets the new."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.backup.make import backup
from backend.backup.restore import restore_backup
from backend.errors import ServiceError
from backend.files.snapshots import DATABASE, SIDES, PlainKeeper, copy_database, database_of, files_of
from backend.runtimes import keeper_script
from backend.runtimes.keeper import ContainerKeeper
from tests.service.engine.support import NEWER, Site, make_database, runs_in
from tests.support.half_written import ROWS, mode_of, verdict_on, write_half

RUNS = [f"run {number:04} {'x' * 200}" for number in range(ROWS)]
Place = Callable[[Path, Path], None]


def plainly(box: Path, copy: Path) -> None:
    PlainKeeper().place_database(box, copy)


def in_a_container(box: Path, copy: Path) -> None:
    """The script that is run there, as its functions."""
    given = box.parent / "in"
    given.mkdir(exist_ok=True)
    shutil.copyfile(copy, given / DATABASE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper_script, "BOX", box)
        patch.setattr(keeper_script, "IN", given)
        keeper_script.main("place")


def before_it_has_an_owner(box: Path, copy: Path) -> None:
    """As where a backup was put back: no container is needed."""
    ContainerKeeper(engine=None, image="box:{version}").place_database(box, copy)  # type: ignore[arg-type]


PLACES = [plainly, in_a_container, before_it_has_an_owner]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A box with a database of which there is a copy, and which was cut off in the middle of a transaction since."""
    database = database_of(tmp_path / "box")
    make_database(database, runs=RUNS)
    copy_database(database, tmp_path / "copy.db")
    write_half(database)
    return tmp_path / "box"


def test_the_same_endings_are_known_in_a_container():
    assert keeper_script.SIDES == SIDES


@pytest.mark.parametrize("place", PLACES)
def test_a_copy_in_its_place_is_whole(box: Path, tmp_path: Path, place: Place):
    place(box, tmp_path / "copy.db")
    assert files_of(database_of(box)) == [database_of(box)]
    assert (verdict_on(database_of(box)), runs_in(database_of(box))) == ("ok", RUNS)


@pytest.mark.parametrize("place", PLACES)
def test_at_no_moment_the_copy_lies_beside_what_was_the_others(box: Path, tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch):
    """Nor after a power cut: what went is synced before the copy comes, and then that it came. In between the old one lacks its sides."""
    database, seen = database_of(box), []
    rename, sync = Path.replace, os.fsync

    def replace(self: Path, target: Path) -> Any:
        if target == database:
            seen.append(("rename", [path.name for path in files_of(database)]))
        return rename(self, target)

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(("sync", [path.name for path in files_of(database)]))
        sync(descriptor)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    place(box, tmp_path / "copy.db")
    assert seen == [(what, [DATABASE]) for what in ("sync", "rename", "sync")]


@pytest.mark.parametrize("place", PLACES)
def test_cut_short_before_the_copy_comes_it_is_put_there_the_next_time(
    box: Path, tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_paths: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises(InterruptedError):
            place(box, tmp_path / "copy.db")
    assert files_of(database_of(box)) == [database_of(box)], "the old one, half written"
    place(box, tmp_path / "copy.db")
    assert (verdict_on(database_of(box)), runs_in(database_of(box))) == ("ok", RUNS)


def test_a_restored_server_whose_migration_is_cut_off_has_its_database_again(tmp_path: Path):
    """It is the database of a copy, so without WAL until its box is started."""
    site = Site(tmp_path / "state", ports=6)
    server = site.made()
    make_database(site.database(server), runs=RUNS)
    for verb in ("delete", "restore", "stop"):
        site.ask(verb)
        site.reconciler().reconcile_all()
    assert mode_of(site.database(server)) == "delete"

    def at(point: str) -> None:
        if point == "upgrade.migrate.begun":
            write_half(site.database(server))
            site.runtime.migrate_error = ServiceError("migration_failed", version=NEWER, why="Killed")

    operation = site.upgrade()
    site.reconciler(at=at).reconcile_all()
    assert (site.operation(operation).error or {})["code"] == "migration_failed"
    assert (verdict_on(site.database(server)), runs_in(site.database(server)), site.replaced()) == ("ok", RUNS, [])


def test_a_backup_does_not_meet_what_lay_where_it_goes(tmp_path: Path):
    """Beside a registry that is no more, and of another restore, which was cut short."""
    site = Site(tmp_path / "state")
    server = site.made()
    make_database(site.database(server), runs=RUNS)
    backup(site.registry, site.settings, tmp_path / "backup")
    settings = type(site.settings)(state_dir=tmp_path / "other", inside_host="h")
    there = settings.servers_dir / server.id / "data" / DATABASE
    make_database(there, runs=RUNS)
    write_half(there)
    registry = settings.state_dir / "registry.db"
    make_database(registry, runs=RUNS)
    write_half(registry)
    registry.unlink()
    restore_backup(tmp_path / "backup", settings)
    assert (verdict_on(there), runs_in(there), verdict_on(registry)) == ("ok", RUNS, "ok")
    assert not registry.with_name("registry.db-journal").exists()
