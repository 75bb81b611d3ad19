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

from backend.runtimes.proctable import processes_of
from demo.ports import free_ports
from tests.service.engine import crash_child
from tests.service.engine.crash_child import Crash, open_site
from tests.service.engine.support import VERSION, Site, install_version, make_database, runs_in

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.service.engine.crash_child"])

STEPS = {
    "create": ("check_storage", "write_box", "start_box", "wait_ready"),
    "delete": ("stop_box", "snapshot", "remove_box"),
    "restore": ("check_name", "unpack_snapshot", "write_box", "start_box", "wait_ready"),
}


def points(kind: str) -> list[Crash]:
    between = [Crash(f"{kind}.{step}.{moment}") for step in STEPS[kind] for moment in ("begun", "done", "noted")]
    return [*between, Crash(f"{kind}.ending"), Crash(f"{kind}.ended")]


CREATE = [
    *points("create"),
    *(Crash("backend.boxfiles:replace_file", call=number, after=True) for number in (1, 2, 3, 4)),
    Crash("backend.atomic:os.fsync", call=3),
    Crash("backend.runtimes.process:ProcessRuntime._launch", after=True),
]
DELETE = [
    *points("delete"),
    Crash("backend.runtimes.process:_terminate"),
    Crash("backend.runtimes.process:_terminate", after=True),
    Crash("backend.runtimes.process:signal.pidfd_send_signal", after=True),
    Crash("backend.snapshots:_prove"),
    Crash("backend.snapshots:copy_database", after=True),
    Crash("backend.snapshots:replace_file", after=True),
    Crash("backend.snapshots:sync_folder"),
    Crash("backend.snapshots:PlainKeeper.remove", call=2),
    Crash("backend.atomic:shutil.rmtree", call=5),
    Crash("os:rmdir", call=4, after=True),
]
RESTORE = [*points("restore"), Crash("backend.snapshots:place_file"), Crash("backend.snapshots:place_file", after=True)]
UNDO = [Crash(f"create.{step}.{moment}") for step in ("start_box", "write_box") for moment in ("undoing", "undone")]
UNDO += [
    Crash("create.wait_ready.noted"),
    Crash("create.ending"),
    Crash("backend.snapshots:PlainKeeper.remove", call=2),
    Crash("create.ended"),
]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    envs = tmp_path / "envs"
    program = (Path(__file__).parent / "fake_box.py").read_text()
    install_version(envs, VERSION, f"#!{sys.executable}\n{program}")
    first = free_ports(1)[0]
    return {"envs_dir": envs, "port_first": first, "port_last": first + 3, "start_timeout": 30, "stop_timeout": 20}


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
