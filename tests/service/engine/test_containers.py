"""The Docker runtime and its folders on a real daemon, by a service account that is not root: the contracts that every adapter passes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.checks import service as checks
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories
from backend.files.snapshots import DatabaseCopies
from backend.networks import layout
from backend.networks.layout import install_id
from backend.runtimes.containers import ContainerRuntime, Site
from backend.runtimes.docker import Engine
from backend.runtimes.docker_spec import MIB, one_shot
from backend.runtimes.keeper import ContainerKeeper
from backend.serving import wiring
from backend.settings import Settings
from demo.ports import free_ports
from tests.service.engine.contract_boxfiles import UIDS, BoxFilesContract, box_of
from tests.service.engine.contract_runtime import Bench, RuntimeContract
from tests.service.engine.support import make_database, runs_in
from tests.support.account import ACCOUNT, service_account
from tests.support.box import MLFLOW_VERSION, environment
from tests.support.docker import Docker, DockerError, in_place_of, newer_programs
from tests.support.podman import rootless_podman, running_podman

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]
IMAGE = "aihub-box:{version}"
ID = "k3v9x2m7q4ab"


@pytest.fixture(scope="module", params=["docker", "newer docker", "podman"])
def docker(docker: Docker, request: pytest.FixtureRequest) -> Iterator[Docker]:
    """The run's one daemon, so that the image is built once; and with the same image a newer one, and Podman's Docker-compatible socket."""
    image = docker.box_image(MLFLOW_VERSION)
    if request.param == "docker":
        yield docker
    elif request.param == "podman":
        with running_podman(docker, image) as podman:
            yield podman
    else:
        with in_place_of(docker, image, programs=newer_programs()) as newer:
            yield newer


@pytest.fixture
def state(docker: Docker) -> Iterator[Path]:
    """The service's folder, its own; this process is the service's account while the test runs."""
    home = Path(tempfile.mkdtemp(prefix="aihub-state-", dir="/tmp"))
    os.chown(home, ACCOUNT, ACCOUNT)
    socket = docker.home / "docker.sock"
    with service_account(socket.stat().st_gid):
        yield home
    shutil.rmtree(home)


@pytest.fixture
def engine(docker: Docker, state: Path) -> Iterator[Engine]:
    engine = Engine(address=docker.host, install=install_id(state), timeout=60)
    yield engine
    for container in engine.containers(fresh=True):
        engine.remove(container.id)
    for name in layout.network_names(install_id(state)):
        with contextlib.suppress(DockerError):  # not every test makes them
            docker.run("network", "rm", name)
    engine.close()


@pytest.fixture
def keeper(engine: Engine) -> ContainerKeeper:
    return ContainerKeeper(engine=engine, image=IMAGE)


@pytest.fixture
def boxes(state: Path, keeper: ContainerKeeper) -> BoxDirectories:
    return BoxDirectories(state / "servers", keeper)


def site_of(state: Path) -> Site:
    settings = Settings(state_dir=state, runtime="docker", gate_network="10.214.0.0/24", mlflow_network="10.214.1.0/24")
    install = install_id(state)
    return Site(install=install, image=IMAGE, listen_address="127.0.0.1", networks=layout.networks(settings, install))


class ContainerBench(Bench):
    def schema_of(self, directory: Path) -> str | None:
        """The version whose schema a real database has; it belongs to the box's uid, so root looks."""
        os.seteuid(0)
        try:
            wanted = json.loads((environment() / "version.json").read_text())["schema_revision"]
            with contextlib.closing(sqlite3.connect(directory / "data" / "mlflow.db")) as database:
                (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            os.seteuid(ACCOUNT)
        return MLFLOW_VERSION if found == wanted else str(found)


@pytest.fixture
def bench(state: Path, engine: Engine, boxes: BoxDirectories) -> Bench:
    def kill(server_id: str) -> None:
        for container in engine.of(server_id, fresh=True).values():
            engine.stop(container.id, seconds=0)

    return ContainerBench(
        runtime=ContainerRuntime(engine=engine, site=site_of(state)),
        boxes=boxes,
        kill=kill,
        ports=free_ports(4),
        reopen=lambda: ContainerRuntime(engine=Engine(address=engine.address, install=install_id(state), timeout=60), site=site_of(state)),
        version=MLFLOW_VERSION,
        uids=[UIDS[0] + 2 * number for number in range(1, 5)],
    )


class TestContainerFolders(BoxFilesContract):
    pass


class TestContainerRuntime(RuntimeContract):
    pass


def test_each_folder_is_owned_by_who_writes_it_and_read_by_nobody_else(boxes: BoxDirectories):
    boxes.install(box_of(ID))
    home = boxes.directory(ID)
    gate, mlflow = UIDS
    found = {
        str(path.relative_to(home)): (path.stat().st_uid, path.stat().st_gid, f"{stat.S_IMODE(path.stat().st_mode):04o}")
        for path in (*home.iterdir(), *(home / "config").iterdir(), home / "config" / "s3" / "credentials")
    }
    own = {name: found.pop(name) for name in ("run", "log", "data", "tmp", "spawn")}
    assert own == {
        "run": (gate, ACCOUNT, "0750"),
        "log": (gate, ACCOUNT, "0750"),
        "data": (mlflow, ACCOUNT, "0750"),
        "tmp": (mlflow, ACCOUNT, "0750"),
        "spawn": (mlflow, mlflow, "0711"),
    }
    folders = {name: found.pop(name) for name in ("config", "config/s3")}
    assert set(folders.values()) == {(ACCOUNT, gate, "2750")}
    assert len(found) >= 4
    assert set(found.values()) == {(ACCOUNT, gate, "0640")}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_database_that_is_its_boxs_alone_is_kept_and_put_back(boxes: BoxDirectories, keeper: ContainerKeeper, state: Path):
    (state / "kept").mkdir()
    kept = DatabaseCopies(state / "kept", keeper)
    make_database(boxes.directory(ID) / "data" / "mlflow.db", runs=["one", "two"])
    boxes.install(box_of(ID))  # gives it its owner
    database = boxes.directory(ID) / "data" / "mlflow.db"
    assert database.stat().st_uid == UIDS[1]
    with pytest.raises(PermissionError):
        database.read_bytes()
    (state / "as it is").mkdir()
    keeper.copy_files(boxes.directory(ID), state / "as it is")
    assert runs_in(state / "as it is" / "mlflow.db") == ["one", "two"]
    kept.make(ID, boxes.directory(ID), {"server_id": ID})
    boxes.remove(ID)
    kept.unpack(ID, boxes.directory(ID))
    assert runs_in(database) == ["one", "two"]
    boxes.install(box_of(ID))
    assert database.stat().st_uid == UIDS[1]
    keeper.place_database(boxes.directory(ID), kept.folder(ID) / "mlflow.db")
    assert (database.stat().st_uid, stat.S_IMODE(database.stat().st_mode)) == (UIDS[1], 0o600)


@pytest.mark.parametrize("closed", ["chmod 0 data", "chmod 0 data/mlflow.db", f"chgrp {UIDS[1]} data"])
def test_what_code_in_a_box_closed_is_open_again_when_it_does_not_run(
    boxes: BoxDirectories, keeper: ContainerKeeper, state: Path, closed: str
):
    make_database(boxes.directory(ID) / "data" / "mlflow.db", runs=["one"])
    boxes.install(box_of(ID))
    os.seteuid(0)
    subprocess.run(closed.split(), cwd=boxes.directory(ID), check=True, user=0, group=0)
    os.seteuid(ACCOUNT)
    with pytest.raises(ServiceError, match="snapshot_failed"):
        keeper.copy_database(boxes.directory(ID), state / "taken.db")
    for _again in range(2):
        boxes.reopen(ID)
    keeper.copy_database(boxes.directory(ID), state / "taken.db")
    assert runs_in(state / "taken.db") == ["one"]
    assert [stat.S_IMODE((boxes.directory(ID) / name).stat().st_mode) for name in ("data", "data/mlflow.db")] == [0o750, 0o600]


def test_what_a_killed_service_left_writing_ends_with_a_stop(bench: Bench, engine: Engine):
    server_id, directory, _address = bench.box()
    sleeping = {
        **one_shot(memory=64 * MIB, pids=4),
        "image": engine.image_id(IMAGE.format(version=MLFLOW_VERSION)),
        "entrypoint": ["/opt/aihub/env/bin/python", "-c", "import time; time.sleep(600)"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_wait", lambda *_arguments: 0)  # it is not waited for, and not removed, as where the service was killed
        patch.setattr(engine, "remove", lambda _container: None)
        engine.run("migrate", sleeping, seconds=60, writes=server_id)
    assert list(engine._show(fresh=True).writers.values()) == [server_id]
    bench.runtime.stop(server_id=server_id, directory=directory, timeout=1)
    assert engine._show(fresh=True).writers == {}


def test_a_link_in_the_place_of_the_database_leads_nowhere(boxes: BoxDirectories, keeper: ContainerKeeper, state: Path):
    secret = state / "secret.db"
    make_database(secret, runs=["of the service"])
    boxes.install(box_of(ID))
    os.seteuid(0)
    (boxes.directory(ID) / "data" / "mlflow.db").symlink_to(secret)
    os.seteuid(ACCOUNT)
    with pytest.raises((ServiceError, FileNotFoundError)):
        keeper.copy_database(boxes.directory(ID), state / "taken.db")
    assert not (state / "taken.db").exists()


def test_a_podman_without_root_is_refused_before_anything_is_made(tmp_path: Path):
    with rootless_podman() as address:
        settings = Settings(state_dir=tmp_path, runtime="docker", docker_host=address)
        with pytest.raises(ServiceError) as caught:
            list(checks.runtime(settings))
        assert (caught.value.code, caught.value.params) == ("runtime_rootless", {"address": address})
        engine = wiring.make_engine(settings)
        with pytest.raises(ServiceError, match="runtime_rootless"):
            engine.create({"image": "sha256:abc"})
        engine.close()
