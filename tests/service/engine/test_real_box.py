"""The engine with everything real: object store, nginx, guard and MLflow."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.domain import BoxState, StorageKey
from backend.registry.models import Operation, Server
from backend.runtimes.process import ProcessRuntime
from backend.runtimes.proctable import guard_pid, processes_of
from backend.s3 import S3
from backend.secret import Secret
from backend.wishes import CreateWish, StorageWish
from tests.service.engine.support import ALICE, GROUP, Site, until
from tests.support.box import MLFLOW_VERSION, environment
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box
PASSWORD = "a right password"


class RealSite(Site):
    """A site whose reconciler runs, and whose one server is asked for things over HTTP."""

    def ask_and_wait(self, operation: Operation, state: str = "succeeded") -> Operation:
        done: Operation = until(lambda: (found := self.operation(operation)).finished_at is not None and found, 90)
        assert done.state == state, done.error
        return done

    def is_up(self) -> Server | None:
        server = self.server()
        return server if server is not None and server.status in {"running", "sleeping"} else None

    def answers(self) -> bool:
        server = self.one()
        directory, address = self.boxes.directory(server.id), ("127.0.0.1", server.port)
        seen = self.runtime.observe(server_id=server.id, directory=directory, address=address)
        return seen.state in {BoxState.ASLEEP, BoxState.AWAKE}

    def call(self, path: str, document: dict[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self.one().port}/mlflow/api/2.0/mlflow/{path}"
        headers = {"Host": f"host.example.org:{self.one().port}"}
        answer = requests.post(url, json=document, headers=headers, auth=("alice", PASSWORD), timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def experiments(self) -> list[str]:
        found = self.call("experiments/search", {"max_results": 10})["experiments"]
        return sorted(experiment["name"] for experiment in found)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, s3_store: S3Store) -> Iterator[RealSite]:
    home, envs = tmp_path_factory.mktemp("real") / "state", environment().parent
    runtime = ProcessRuntime(servers_dir=home / "servers", envs_dir=envs, environment=dict(os.environ))
    site = RealSite(home, runtime=runtime, envs_dir=envs, region=s3_store.region, stop_timeout=20)
    site.store = S3()  # type: ignore[assignment]
    stop = threading.Event()
    thread = threading.Thread(target=site.reconciler().run, args=(stop,))
    thread.start()
    try:
        key = StorageKey(access_key_id=s3_store.owner.access_key, secret_access_key=Secret(s3_store.owner.secret_key))
        wish = CreateWish(
            group=GROUP.name,
            env_name="wine",
            bucket=s3_store.make_bucket(),
            key=key,
            endpoint_url=s3_store.endpoint_url,
            mlflow_version=MLFLOW_VERSION,
        )
        site.ask_and_wait(site.requests.create(ALICE, wish, request_id=None))
        users = [("alice", Secret(PASSWORD))]
        site.ask_and_wait(site.requests.set_users(ALICE, GROUP.name, "wine", users, request_id=None))
        site.call("experiments/create", {"name": "first"})
        yield site
    finally:
        stop.set()
        thread.join(30)
        for server_id in site.boxes.ids():
            runtime.stop(server_id=server_id, directory=site.boxes.directory(server_id), timeout=5)
        site.registry.close()


def directory_of(site: RealSite) -> Path:
    return site.boxes.directory(site.one().id)


def test_a_killed_guard_and_what_it_left_are_replaced(real: RealSite):
    directory = directory_of(real)
    before = {process.pid for process in processes_of(directory)}
    assert len(before) >= 3, "guard, nginx and MLflow"
    guard = guard_pid(directory)
    assert guard is not None
    os.kill(guard, signal.SIGKILL)
    until(lambda: guard_pid(directory) not in {guard, None} and real.answers(), 60)
    assert real.experiments() == ["Default", "first"]
    until(lambda: not before & {process.pid for process in processes_of(directory)})


def test_everything_of_a_box_killed_at_once_comes_back(real: RealSite):
    directory = directory_of(real)
    real.experiments()
    before = [process.pid for process in processes_of(directory)]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: guard_pid(directory) not in {*before, None} and real.answers(), 60)
    assert real.experiments() == ["Default", "first"]


def test_new_keys_are_in_force_after_a_restart_of_mlflow(real: RealSite, s3_store: S3Store):
    limited = StorageKey(access_key_id=s3_store.reader.access_key, secret_access_key=Secret(s3_store.reader.secret_key))
    asked = real.requests.set_storage(ALICE, GROUP.name, "wine", StorageWish(key=limited), request_id=None)
    failed = real.ask_and_wait(asked, "failed")
    assert failed.error is not None
    assert failed.error["code"] == "storage_forbidden"
    credentials = directory_of(real) / "config" / "s3" / "credentials"
    assert s3_store.owner.access_key in credentials.read_text(), "the old stay in force"
    owner = StorageKey(access_key_id=s3_store.owner.access_key, secret_access_key=Secret(s3_store.owner.secret_key))
    real.ask_and_wait(real.requests.set_storage(ALICE, GROUP.name, "wine", StorageWish(key=owner), request_id=None))
    assert real.experiments() == ["Default", "first"]


def test_a_stranger_on_the_port_of_a_stopped_server(real: RealSite):
    real.ask_and_wait(real.ask("stop"))
    assert processes_of(directory_of(real)) == []
    port = real.one().port
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        failed = real.ask_and_wait(real.ask("start"), "failed")
        assert failed.error is not None
        assert (failed.error["code"], failed.error["params"]) == ("port_taken", {"port": port})
        assert (real.one().status, real.one().desired) == ("failed", "running")
    until(real.is_up, 60)
    assert real.one().port == port
    assert real.experiments() == ["Default", "first"]


def test_deleted_and_restored_with_what_was_in_it(real: RealSite):
    real.call("experiments/create", {"name": "second"})
    directory = directory_of(real)
    real.ask_and_wait(real.ask("delete"))
    assert not directory.exists()
    assert real.kept.exists(real.one().id)
    real.ask_and_wait(real.ask("restore"))
    assert real.experiments() == ["Default", "first", "second"]
