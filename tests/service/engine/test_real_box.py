"""The engine with everything real: object store, nginx, guard and MLflow."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

import psutil
import pytest
import requests
from mlwf.secret import Secret

from backend.domain import StorageKey
from backend.runtimes.proctable import guard_pid, processes_of
from backend.wishes.values import StorageWish
from demo.ports import LOOPBACK
from demo.store import StoreUser
from tests.service.engine.real_site import RealSite, running_site
from tests.service.engine.support import asking, until
from tests.support.box import MLFLOW_VERSION, environment
from tests.support.half_written import mode_of
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, s3_store: S3Store) -> Iterator[RealSite]:
    home = tmp_path_factory.mktemp("real") / "state"
    with running_site(home, s3_store, envs=environment().parent, version=MLFLOW_VERSION) as site:
        site.call("experiments/create", {"name": "first"})
        yield site


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


def key_of(user: StoreUser) -> StorageKey:
    return StorageKey(access_key_id=user.access_key, secret_access_key=Secret(user.secret_key))


def mlflow_pids(site: RealSite) -> set[int]:
    """Of the box's MLflow, which a request has just woken."""
    found = {each.pid: psutil.Process(each.pid).cmdline() for each in processes_of(directory_of(site))}
    return {pid for pid, words in found.items() if "tracking_server.mlflow_process" in words}


def test_keys_that_are_refused_leave_the_old_in_force(real: RealSite, s3_store: S3Store):
    failed = real.ask_and_wait(real.requests.set_storage(asking(), StorageWish(key=key_of(s3_store.reader))), "failed")
    assert failed.error is not None
    assert failed.error["code"] == "storage_forbidden"
    credentials = directory_of(real) / "config" / "s3" / "credentials"
    assert s3_store.owner.access_key in credentials.read_text(), "the old stay in force"


def test_new_keys_are_in_force_after_a_restart_of_mlflow(real: RealSite, s3_store: S3Store):
    """MLflow shows its key and its store in the address that it signs for a download; the store proves that the secret is the key's."""
    place = "/api/2.0/mlflow-artifacts/{}/0/keys/artifacts/x"

    def signed() -> SplitResult:
        address: str = real.request("GET", place.format("presigned")).json()["url"]
        assert requests.get(address, timeout=60).content == b"x", address
        return urlsplit(address)

    assert real.request("PUT", place.format("artifacts"), data=b"x").status_code == 200
    assert parse_qs(signed().query)["X-Amz-Credential"][0].startswith(f"{s3_store.owner.access_key}/")
    before = mlflow_pids(real)
    other_name = s3_store.endpoint_url.replace(LOOPBACK, "localhost")
    wish = StorageWish(key=key_of(s3_store.other_owner), endpoint_url=other_name)
    real.ask_and_wait(real.requests.set_storage(asking(), wish))
    now = signed()
    assert parse_qs(now.query)["X-Amz-Credential"][0].startswith(f"{s3_store.other_owner.access_key}/")
    assert f"http://{now.netloc}" == other_name
    assert before
    assert not before & mlflow_pids(real)
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
    assert mode_of(real.database(real.one())) == "wal", "which no copy has"
