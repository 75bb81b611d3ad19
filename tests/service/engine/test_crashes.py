"""The service is killed at each step of create, delete and restore, in between and in the middle; the next one reaches what was asked."""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.domain import OperationKind
from backend.errors import ServiceError
from backend.plans.catalogue import PLANS
from backend.runtimes.proctable import processes_of
from demo.ports import free_range
from tests.service.engine import crash_child
from tests.service.engine.crash_child import Crash, open_site
from tests.service.engine.support import NEWER, SECRET, VERSION, Site, install_version, make_database, runs_in, schema_of

UNFIT = ServiceError("version_unfit", version=NEWER, why="GET / is answered with 500")
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.service.engine.crash_child"])


def points(kind: str) -> list[Crash]:
    """Around each step of its plan, so that none goes without."""
    steps = [step.name for step in PLANS[OperationKind(kind)].steps]
    between = [Crash(f"{kind}.{step}.{moment}") for step in steps for moment in ("begun", "done", "noted")]
    return [*between, Crash(f"{kind}.ending"), Crash(f"{kind}.ended")]


CREATE = [
    *points("create"),
    *(Crash("backend.files.boxfiles:replace_file", call=number, after=True) for number in (1, 2, 3, 4)),
    Crash("backend.atomic:os.fsync", call=3),
    Crash("backend.runtimes.process:ProcessRuntime._launch", after=True),
]
DELETE = [
    *points("delete"),
    Crash("backend.runtimes.process:_terminate"),
    Crash("backend.runtimes.process:_terminate", after=True),
    Crash("backend.runtimes.process:signal.pidfd_send_signal", after=True),
    Crash("backend.files.snapshots:_prove"),
    Crash("backend.files.snapshots:copy_database", after=True),
    Crash("backend.files.snapshots:write_manifest", after=True),
    Crash("backend.files.snapshots:sync_folder"),
    Crash("backend.files.snapshots:PlainKeeper.remove", call=2),
    Crash("backend.atomic:shutil.rmtree", call=5),
    Crash("os:rmdir", call=4, after=True),
]
RESTORE = [*points("restore"), Crash("backend.files.snapshots:place_file"), Crash("backend.files.snapshots:place_file", after=True)]


def mostly_heavy(crashes: list[Crash], *quick: str) -> list[Any]:
    """All of them, of which `make test` runs those that are named."""
    assert set(quick) <= {str(each) for each in crashes}
    return [each if str(each) in quick else pytest.param(each, marks=pytest.mark.heavy) for each in crashes]


UPGRADE = [
    *points("upgrade"),
    Crash("backend.files.snapshots:DatabaseCopies.note_touched"),
    Crash("backend.files.snapshots:DatabaseCopies.note_touched", after=True),
    Crash("backend.runtimes.process:ProcessRuntime.migrate", call=2, after=True),
    Crash("backend.files.snapshots:DatabaseCopies.adopt"),
    Crash("backend.wishes.portpool:release"),
]
ROLLBACK = [
    *points("rollback"),
    Crash("backend.files.snapshots:DatabaseCopies.note_touched", after=True),
    *(Crash(f"backend.files.snapshots:{name}", after=after) for name in ("place_file", "remove_sides") for after in (False, True)),
]
USERS = [*points("users"), Crash("backend.files.boxfiles:replace_file")]
STORAGE = [*points("storage"), Crash("backend.files.boxfiles:replace_file", after=True)]
UNDO_UPGRADE = [
    *(
        Crash(f"upgrade.{step}.{moment}")
        for step in ("migrate", "snapshot", "stop_box", "copy_for_trial")
        for moment in ("undoing", "undone")
    ),
    Crash("backend.files.snapshots:DatabaseCopies.put_back", after=True),
    Crash("backend.files.snapshots:remove_sides", call=2, after=True),
    *(Crash("backend.files.snapshots:DatabaseCopies.remove", call=4, after=after) for after in (False, True)),
    Crash("upgrade.ending"),
]
GIVE_BACK = [
    *(Crash(f"upgrade.{step}.{moment}") for step in ("take_version", "migrate") for moment in ("undoing", "undone")),
    *(Crash("backend.files.snapshots:DatabaseCopies.adopt", call=2, after=after) for after in (False, True)),
    Crash("upgrade.ending"),
]
UNDO = [Crash(f"create.{step}.{moment}") for step in ("start_box", "write_box") for moment in ("undoing", "undone")]
UNDO += [
    Crash("create.wait_ready.noted"),
    Crash("create.ending"),
    Crash("backend.files.snapshots:PlainKeeper.remove", call=2),
    Crash("create.ended"),
]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    envs = tmp_path / "envs"
    program = (Path(__file__).parent / "fake_box.py").read_text()
    for version in (VERSION, NEWER):
        install_version(envs, version, f"#!{sys.executable}\n{program}")
    first = free_range(6)
    return {"envs_dir": envs, "port_first": first, "port_last": first + 5, "start_timeout": 30, "stop_timeout": 20}


@pytest.fixture
def crashed(tmp_path: Path, settings: dict[str, Any]) -> Iterator[Site]:
    site = open_site(tmp_path / "state", settings)
    yield site
    for server_id in site.boxes.ids():
        site.runtime.stop(server_id=server_id, directory=site.boxes.directory(server_id), timeout=0)
    assert strays(site) == []


def strays(site: Site) -> list[int]:
    """Processes that have anything of this site's servers open."""
    return [process.pid for folder in site.settings.servers_dir.glob("*") for process in processes_of(folder)]


def crash(site: Site, settings: dict[str, Any], where: Crash) -> None:
    child = context.Process(target=crash_child.run, args=(site.settings.state_dir, settings, where))
    child.start()
    child.join(90)
    assert child.exitcode == -signal.SIGKILL, f"{where} was not passed"


def assert_runs(site: Site) -> None:
    """The server runs once, answers, and nothing else is there."""
    server = site.one()
    assert (server.status, server.desired) == ("sleeping", "running")
    assert list(site.ports()) == [server.port]
    assert (site.runtime.running(), site.boxes.ids(), site.kept.ids()) == ([server.id], [server.id], [])
    directory = site.boxes.directory(server.id)
    assert len(processes_of(directory)) == 2, "one guard and its one child"
    assert len(strays(site)) == 2
    assert json.loads((directory / "config" / "settings.json").read_text())["listen"] == f"127.0.0.1:{server.port}"
    assert [path for path in site.settings.state_dir.rglob(".*") if path.name != "." and path.suffix != ".sock"] == []
    with socket.create_connection(("127.0.0.1", server.port), timeout=10):
        pass


@pytest.mark.parametrize("where", CREATE, ids=str)
def test_create(crashed: Site, settings: dict[str, Any], where: Crash):
    operation = crashed.create()
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    assert_runs(crashed)


@pytest.mark.parametrize("where", UNDO, ids=str)
def test_a_create_that_cannot_be(crashed: Site, settings: dict[str, Any], where: Crash):
    (settings["envs_dir"] / f"mlflow-{VERSION}" / "bin" / "fake.json").write_text('{"state": "failed", "reason": "no template"}')
    operation = crashed.create()
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    done = crashed.operation(operation)
    assert done.state == "failed"
    assert done.error is not None
    assert done.error["code"] == "box_failed_to_start"
    crashed.assert_nothing_left()
    assert strays(crashed) == []


@pytest.mark.parametrize("where", DELETE, ids=str)
def test_delete(crashed: Site, settings: dict[str, Any], where: Crash):
    server = crashed.made()
    make_database(crashed.database(server), runs=["first", "second"])
    operation = crashed.ask("delete")
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    assert crashed.one().status == "deleted"
    assert (crashed.runtime.running(), crashed.boxes.ids(), crashed.kept.ids()) == ([], [], [server.id])
    assert list(crashed.settings.servers_dir.iterdir()) == []
    assert [path.name for path in crashed.settings.kept_dir.iterdir()] == [server.id]
    assert runs_in(crashed.kept.folder(server.id) / "mlflow.db") == ["first", "second"]
    assert strays(crashed) == []
    crashed.ask("restore")
    crashed.reconciler().reconcile_all()
    assert runs_in(crashed.database(server)) == ["first", "second"]


@pytest.mark.parametrize("where", RESTORE, ids=str)
def test_restore(crashed: Site, settings: dict[str, Any], where: Crash):
    server = crashed.made()
    make_database(crashed.database(server), runs=["first", "second"])
    crashed.ask("delete")
    crashed.reconciler().reconcile_all()
    operation = crashed.ask("restore")
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    assert runs_in(crashed.database(server)) == ["first", "second"]
    assert_runs(crashed)


@pytest.mark.parametrize(
    "where", mostly_heavy(UPGRADE, "upgrade.try_version.begun", "upgrade.migrate.done", "upgrade.take_version.done"), ids=str
)
def test_upgrade(crashed: Site, settings: dict[str, Any], where: Crash):
    server = crashed.made()
    make_database(crashed.database(server), runs=["first", "second"])
    operation = crashed.upgrade()
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    assert (crashed.one().mlflow_version, crashed.one().previous_version) == (NEWER, VERSION)
    assert runs_in(crashed.database(server)) == ["first", "second"]
    assert schema_of(crashed.database(server)) == NEWER
    assert (schema_of(crashed.kept_previous(server) / "mlflow.db"), crashed.replaced()) == (None, [])
    assert_runs(crashed)


@pytest.mark.parametrize("where", mostly_heavy(UNDO_UPGRADE, "upgrade.snapshot.undoing"), ids=str)
def test_an_upgrade_that_cannot_be(crashed: Site, settings: dict[str, Any], where: Crash):
    """The copy can be migrated and tried, and the server's own database cannot be opened afterwards."""
    server = crashed.made()
    make_database(crashed.database(server), runs=["first"])
    operation = crashed.upgrade()
    crash(crashed, {**settings, "unfit": True}, where)
    crashed.trial.look_error = UNFIT
    crashed.reconciler().reconcile_all()
    done = crashed.operation(operation)
    assert (done.state, (done.error or {}).get("code")) == ("failed", "version_unfit")
    assert (crashed.one().mlflow_version, crashed.one().previous_version) == (VERSION, None)
    assert (runs_in(crashed.database(server)), schema_of(crashed.database(server))) == (["first"], None)
    assert (crashed.previous(), crashed.replaced()) == ([], [])
    assert_runs(crashed)


@pytest.mark.parametrize("where", mostly_heavy(GIVE_BACK, str(GIVE_BACK[5])), ids=str)
def test_an_upgrade_to_a_version_that_does_not_start(crashed: Site, settings: dict[str, Any], where: Crash):
    """It can be tried and proven, where nothing acts by itself, and does not start as the server."""
    server = crashed.made()
    make_database(crashed.database(server), runs=["first"])
    (settings["envs_dir"] / f"mlflow-{NEWER}" / "bin" / "fake.json").write_text('{"loud": "failed", "reason": "no jobs"}')
    operation = crashed.upgrade()
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    done = crashed.operation(operation)
    assert (done.state, (done.error or {}).get("code")) == ("failed", "version_down")
    assert (crashed.one().mlflow_version, crashed.one().previous_version) == (VERSION, None)
    assert (runs_in(crashed.database(server)), schema_of(crashed.database(server))) == (["first"], None)
    assert (crashed.previous(), crashed.replaced()) == ([], [])
    assert_runs(crashed)


@pytest.mark.parametrize("where", mostly_heavy(ROLLBACK, "rollback.unpack_snapshot.done"), ids=str)
def test_rollback(crashed: Site, settings: dict[str, Any], where: Crash):
    server = crashed.made()
    make_database(crashed.database(server), runs=["first"])
    crashed.upgrade()
    crashed.reconciler().reconcile_all()
    make_database(crashed.database(server), runs=["second"])
    operation = crashed.ask("rollback")
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    assert (crashed.one().mlflow_version, crashed.one().previous_version) == (VERSION, NEWER)
    assert (runs_in(crashed.database(server)), schema_of(crashed.database(server))) == (["first"], None)
    assert runs_in(crashed.kept_previous(server) / "mlflow.db") == ["first", "second"]
    assert_runs(crashed)


@pytest.mark.parametrize("where", mostly_heavy(USERS, "users.write_box.done", "users.ending"), ids=str)
def test_users(crashed: Site, settings: dict[str, Any], where: Crash):
    server = crashed.made()
    operation = crashed.set_users("alice", "bob")
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    assert [user["name"] for user in crashed.one().users] == ["alice", "bob"]
    found = json.loads((crashed.boxes.directory(server.id) / "config" / "users.json").read_text())["users"]
    assert found == crashed.one().users, "the registry and the box have the same"
    assert_runs(crashed)


@pytest.mark.parametrize("where", mostly_heavy(STORAGE, "storage.write_box.done", "storage.ending"), ids=str)
def test_storage(crashed: Site, settings: dict[str, Any], where: Crash):
    server = crashed.made()
    operation = crashed.set_storage("a newer secret")
    crash(crashed, settings, where)
    crashed.reconciler().reconcile_all()
    assert crashed.operation(operation).state == "succeeded", crashed.operation(operation).error
    credentials = (crashed.boxes.directory(server.id) / "config" / "s3" / "credentials").read_text()
    assert ("a newer secret" in credentials, SECRET in credentials) == (True, False)
    assert crashed.one().access_key_id == "AKIANEW"
    assert_runs(crashed)
