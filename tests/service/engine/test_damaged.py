"""A database that SQLite cannot read any more: it keeps no other one from being backed up, and its server can be deleted."""

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backend.backup.make import backup
from backend.backup.restore import restore_backup
from backend.errors import ServiceError
from backend.registry.models import Server
from backend.runtimes import keeper_script
from tests.service.engine.support import ADMIN, GROUP, Site, asking, make_database, runs_in
from tests.support.account import ACCOUNT, service_account

PAGE = 4096
LARGER_THAN_DISKS = 2**43
"""Of a file that has nothing in it."""


def damage(site: Site, env: str) -> Server:
    """A server whose box does not run, and of whose database a page is lost."""
    server = site.made(env)
    site.ask("stop", env=env)
    site.reconciler().reconcile_all()
    make_database(site.database(server), runs=[f"run {number} {'x' * 500}" for number in range(100)])
    with site.database(server).open("r+b") as database:
        database.seek(3 * PAGE)
        database.write(b"\xff" * PAGE)
    return server


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("mlflow.db")}


def delete(site: Site, env: str, *, damaged: bool) -> str | None:
    """The error's code; None where it was deleted."""
    operation = site.requests.delete(asking(ADMIN, env), damaged=damaged)
    site.reconciler().reconcile_all()
    error = site.operation(operation).error
    return None if error is None else error["code"]


def test_the_others_are_backed_up_and_its_files_are_kept_as_they_lay(site: Site, tmp_path: Path):
    make_database(site.database(site.made("well")), runs=["a run"])
    server = damage(site, "ill")
    with closing(sqlite3.connect(site.database(server))) as box:  # one that runs: what it wrote last lies beside the database
        box.execute("CREATE TABLE later (name TEXT)")
        manifest = backup(site.registry, site.settings, tmp_path / "backup")
        there = files_in(site.database(server).parent)
    assert {(found["env_name"], found["database"]) for found in manifest["servers"]} == {("well", True), ("ill", False)}
    (failure,) = manifest["failures"]
    assert (failure["id"], failure["group"], failure["env_name"]) == (server.id, GROUP.name, "ill")
    assert "page" in failure["why"] or "malformed" in failure["why"]
    assert (len(there), len(there["mlflow.db-wal"]) > PAGE) == (3, True)
    assert files_in(tmp_path / "backup" / "damaged" / server.id) == there
    assert {f"damaged/{server.id}/{name}" for name in there} < set(manifest["files"])


def test_a_backup_with_damaged_files_puts_them_back_where_they_lay(site: Site, tmp_path: Path):
    well, ill = site.made("well"), damage(site, "ill")
    make_database(site.database(well), runs=["a run"])
    there = files_in(site.database(ill).parent)
    backup(site.registry, site.settings, tmp_path / "backup")
    settings = type(site.settings)(state_dir=tmp_path / "other", inside_host="h")
    assert [found["env_name"] for found in restore_backup(tmp_path / "backup", settings)["failures"]] == ["ill"]
    assert files_in(settings.servers_dir / ill.id / "data") == there
    assert runs_in(settings.servers_dir / well.id / "data" / "mlflow.db") == ["a run"]


def test_files_that_cannot_be_read_at_all_are_said_and_stop_no_other(site: Site, tmp_path: Path):
    well, ill, kept = site.made("well"), site.made("ill"), site.made("kept")
    make_database(site.database(well), runs=["a run"])
    assert delete(site, "kept", damaged=False) is None
    for path in (site.database(ill), site.kept.folder(kept.id) / "users.json"):  # what stands for a sector that cannot be read
        path.unlink()
        path.mkdir()
    manifest = backup(site.registry, site.settings, tmp_path / "backup")
    assert {found["env_name"] for found in manifest["failures"]} == {"ill", "kept"}
    assert all("Is a directory" in found["why"] for found in manifest["failures"])
    assert runs_in(tmp_path / "backup" / "servers" / well.id / "mlflow.db") == ["a run"]


def test_its_server_is_deleted_when_an_admin_says_so_and_comes_back_as_it_was(site: Site):
    server = damage(site, "ill")
    there = files_in(site.database(server).parent)
    assert delete(site, "ill", damaged=False) == "snapshot_failed"
    assert site.one("ill").deleted_at is None
    assert files_in(site.database(server).parent) == there
    assert delete(site, "ill", damaged=True) is None
    assert (list(site.boxes.ids()), files_in(site.kept.folder(server.id))) == ([], there)
    assert site.kept.about(server.id)["damaged"]
    site.kept.unpack(server.id, site.boxes.directory(server.id))
    assert files_in(site.database(server).parent) == there


def test_it_can_be_purged_then(site: Site):
    damage(site, "ill")
    assert delete(site, "ill", damaged=True) is None
    operation = site.ask("purge", env="ill", caller=ADMIN)
    site.reconciler().reconcile_all()
    assert site.operation(operation).state == "succeeded"
    assert (site.server("ill"), list(site.kept.ids())) == (None, [])


def test_a_good_database_is_kept_as_a_proven_copy_also_then(site: Site):
    server = site.made("well")
    make_database(site.database(server), runs=["a run"])
    assert delete(site, "well", damaged=True) is None
    assert site.kept.about(server.id)["damaged"] is None
    assert runs_in(site.kept.folder(server.id) / "mlflow.db") == ["a run"]


def test_a_full_disk_is_no_damage(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site.made("one")
    monkeypatch.setattr(
        "backend.files.untrusted_files.ensure_space", lambda *_arguments, why: (_ for _ in ()).throw(ServiceError("disk_full", why=why))
    )
    with pytest.raises(ServiceError, match="disk_full"):
        backup(site.registry, site.settings, tmp_path / "backup")
    assert delete(site, "one", damaged=True) == "disk_full"
    assert site.one("one").deleted_at is None


@pytest.fixture
def closable() -> Iterator[Site]:
    """A site whose service may be another account than root, for which folders can be closed."""
    home = Path(tempfile.mkdtemp(prefix="aihub-state-", dir="/tmp"))
    yield Site(home, envs_dir=home / "envs")
    shutil.rmtree(home)


@contextmanager
def as_the_service(site: Site) -> Iterator[None]:
    """This process is the account that the site's files belong to, all but those that a test has closed."""
    for path in (site.settings.state_dir, *site.settings.state_dir.rglob("*")):
        os.chown(path, ACCOUNT, ACCOUNT)
    with service_account():
        yield


@pytest.mark.parametrize("closed", ["data", "data/mlflow.db"])
def test_what_code_in_a_box_closed_stops_no_other_and_its_server_can_be_deleted(closable: Site, closed: str):
    well, ill = closable.made("well"), closable.made("ill")
    for server in (well, ill):
        make_database(closable.database(server), runs=["a run"])
    with as_the_service(closable):
        (closable.boxes.directory(ill.id) / closed).chmod(0)
        manifest = backup(closable.registry, closable.settings, closable.settings.state_dir / "backup")
        assert [found["env_name"] for found in manifest["failures"]] == ["ill"]
        assert delete(closable, "ill", damaged=False) is None
        for path in (closable.settings.state_dir / "backup" / "servers" / well.id, closable.kept.folder(ill.id)):
            assert runs_in(path / "mlflow.db") == ["a run"]


def test_what_lies_beside_a_database_counts_for_nothing(site: Site, tmp_path: Path):
    server = site.made()
    with (site.database(server).parent / "mlflow.db-large").open("wb") as file:
        file.truncate(LARGER_THAN_DISKS)
    assert backup(site.registry, site.settings, tmp_path / "backup")["failures"] == []


def test_a_database_that_claims_to_be_larger_than_the_disk_stops_no_other(site: Site, tmp_path: Path):
    well, ill = site.made("well"), site.made("ill")
    make_database(site.database(well), runs=["a run"])
    with site.database(ill).with_name("mlflow.db-wal").open("wb") as file:
        file.truncate(LARGER_THAN_DISKS)
    (failure,) = backup(site.registry, site.settings, tmp_path / "backup")["failures"]
    assert (failure["env_name"], "of which" in failure["why"]) == ("ill", True)
    assert runs_in(tmp_path / "backup" / "servers" / well.id / "mlflow.db") == ["a run"]
    assert delete(site, "ill", damaged=False) == "snapshot_failed"


def test_in_a_container_what_was_closed_is_opened_and_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keeper_script, "BOX", tmp_path)
    (tmp_path / "data").mkdir()
    outside = tmp_path / "outside"
    outside.touch(mode=0o640)
    (tmp_path / "data" / "mlflow.db").touch()
    (tmp_path / "data" / "mlflow.db-wal").symlink_to(outside)
    for path in (tmp_path / "data" / "mlflow.db", tmp_path / "data"):
        path.chmod(0)
    keeper_script.main("open", str(ACCOUNT))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data", tmp_path / "data" / "mlflow.db", outside)]
    assert modes == [0o750, 0o600, 0o640]
    assert (tmp_path / "data").stat().st_gid == ACCOUNT


def test_in_a_container_files_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The script that is run there, as its functions."""
    for name in ("box/data", "out"):
        (tmp_path / name).mkdir(parents=True)
    for name, path in (("BOX", "box"), ("OUT", "out")):
        monkeypatch.setattr(keeper_script, name, tmp_path / path)
    before = {"mlflow.db": b"no database", "mlflow.db-wal": b"what was written last"}
    for name, content in before.items():
        (tmp_path / "box" / "data" / name).write_bytes(content)
        (tmp_path / "out" / name).touch()
    (tmp_path / "out" / "mlflow.db-shm").touch()  # of one that a box put away meanwhile
    keeper_script.main("files")
    assert files_in(tmp_path / "out") == {**before, "mlflow.db-shm": b""}


@pytest.mark.parametrize("lead", ["/dev/zero", "../secret"])
def test_in_a_container_no_link_is_followed_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lead: str):
    for name in ("data", "out"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(keeper_script, "BOX", tmp_path)
    monkeypatch.setattr(keeper_script, "OUT", tmp_path / "out")
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "data" / "mlflow.db").symlink_to(lead)
    (tmp_path / "out" / "mlflow.db").touch()
    with pytest.raises(OSError, match="symbolic links"):
        keeper_script.main("files")
    assert files_in(tmp_path / "out") == {"mlflow.db": b""}
