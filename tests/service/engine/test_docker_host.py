"""What `aihub check` finds of a daemon's host, and a full disk of the daemon's own: against a program that stands for the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.checks import containers as checks
from backend.checks import room
from backend.checks.service import runtime
from backend.domain import SizeClass
from backend.errors import ServiceError
from backend.messages import describe
from backend.runtimes.containers import ContainerRuntime, Site
from backend.runtimes.docker import Engine
from backend.runtimes.keeper import ContainerKeeper
from backend.settings import Settings
from tests.service.engine.docker_stand_in import Daemon, Refusal, stand_in
from tests.support.account import ACCOUNT, service_account

FULL = "failed to create rwlayer: mkdir /var/lib/docker/overlay2/0a1b2c-init: no space left on device"
NETWORKS = {name: {"subnet": subnet, "driver": "bridge"} for name, subnet in (("gates", "10.90.0.0/24"), ("mlflows", "10.90.1.0/24"))}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with stand_in(tmp_path / "docker.sock") as running:
        yield running


def checked(daemon: Daemon, state: Path, **settings: int) -> dict[str, list[tuple[str, str, str]]]:
    """What `aihub check` finds, by name: state, detail and cure of each finding."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for each in runtime(Settings(state_dir=state, runtime="docker", docker_host=f"unix://{daemon.server_address!s}", **settings)):
        found.setdefault(each.name, []).append((each.state, each.detail, each.cure))
    return found


@pytest.mark.parametrize(
    ("about", "word", "cure"),
    [
        ({"MemoryLimit": False}, "the servers' memory", "cgroup_enable=memory"),
        ({"CpuCfsQuota": False}, "the servers' processors", "CONFIG_CFS_BANDWIDTH"),
        ({"PidsLimit": False}, "the servers' processes", "CONFIG_CGROUP_PIDS"),
        ({"SecurityOptions": ["name=apparmor"]}, "every system call", "seccomp-profile"),
    ],
)
def test_what_the_daemon_leaves_out_is_found_with_its_cure(daemon: Daemon, tmp_path: Path, about: dict[str, object], word: str, cure: str):
    daemon.about = {"MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True, "PidsLimit": True}
    assert [state for state, _detail, _cure in checked(daemon, tmp_path)["limits"]] == ["ok"]
    daemon.about |= about
    ((state, detail, told),) = checked(daemon, tmp_path)["limits"]
    assert (state, word in detail, cure in told, told.endswith("stop and start every server")) == ("failure", True, True, True)


@pytest.mark.parametrize(("swaps", "states"), [("", ["ok"]), ("/dev/sda2\tpartition\t999420\t0\t-2\n", ["failure"])])
def test_swap_that_the_kernel_does_not_count_is_found_where_there_is_any(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: str, states: list[str]
):
    (tmp_path / "swaps").write_text(f"Filename\tType\tSize\tUsed\tPriority\n{swaps}")
    monkeypatch.setattr(checks, "SWAPS", tmp_path / "swaps")
    daemon.about = {"MemoryLimit": True, "SwapLimit": False}
    assert [state for state, _detail, _cure in checked(daemon, tmp_path)["limits"]] == states


def test_room_on_the_daemons_own_disk_is_looked_at(daemon: Daemon, tmp_path: Path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        daemon.about = {"DockerRootDir": str(tmp_path / "data")}
        ((state, detail, _cure),) = checked(daemon, tmp_path)["disk"]
        assert (state, str(tmp_path / "data") in detail) == ("warning", True), "another host's, or out of sight"
        daemon.about = {"DockerRootDir": str(tmp_path)}
        assert "disk" not in checked(daemon, tmp_path, disk_least=2**60), "the state's own disk has a finding of its own"
        daemon.about = {"DockerRootDir": other}
        assert [state for state, _detail, _cure in checked(daemon, tmp_path, disk_least=1)["disk"]] == ["ok"]
        ((state, detail, cure),) = checked(daemon, tmp_path, disk_least=2**60)["disk"]
        assert (state, f"free for {other}, 1073741824.0 wanted (disk_least)" in detail) == ("failure", True)
        assert "docker system df" in cure


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
def test_who_cannot_see_the_daemons_disk_is_told(daemon: Daemon, tmp_path: Path):
    closed = tmp_path / "closed"
    (closed / "docker").mkdir(parents=True)
    closed.chmod(0o700)
    with tempfile.TemporaryDirectory() as state, service_account():
        settings = Settings(state_dir=Path(state))
        (found,) = room.daemons_disk(settings, closed / "docker")
    assert (found.state, found.cure) == ("warning", "run this as root")


def start(engine: Engine, box: Path) -> None:
    (box / "config").mkdir()
    (box / "config" / "settings.json").write_text(json.dumps({"listen": "127.0.0.1:21000"}))
    site = Site(install="x", image="aihub-box:{version}", listen_address="127.0.0.1", networks=NETWORKS)
    size = SizeClass(name="small", memory=2**30, cpus=1.0, pids=64, workers=1)
    ContainerRuntime(engine=engine, site=site).start(server_id="k3v9x2m7q4ab", directory=box, mlflow_version="3.17.2", size=size)


def migrate(engine: Engine, box: Path) -> None:
    site = Site(install="x", image="aihub-box:{version}", listen_address="127.0.0.1", networks=NETWORKS)
    ContainerRuntime(engine=engine, site=site).migrate(server_id="k3v9x2m7q4ab", directory=box, mlflow_version="3.17.2", timeout=1)


def prepare(engine: Engine, box: Path) -> None:
    ContainerKeeper(engine=engine, image="aihub-box:{version}").prepare(box, (ACCOUNT, ACCOUNT + 1))


@pytest.mark.parametrize("act", [start, migrate, prepare])
def test_a_full_disk_of_the_daemons_own_is_told_with_its_cure(daemon: Daemon, tmp_path: Path, act: Callable[[Engine, Path], None]):
    daemon.refuse(Refusal("POST", "/containers/create", 500, FULL))
    engine = Engine(address=f"unix://{daemon.server_address!s}", install="x", timeout=1)
    box = tmp_path / "box"
    for name in ("run", "data"):
        (box / name).mkdir(parents=True)
    with contextlib.closing(engine), pytest.raises(ServiceError) as caught:
        act(engine, box)
    assert (caught.value.code, caught.value.params["why"]) == ("daemon_disk_full", FULL)
    assert "Docker Root Dir" in describe(caught.value.code, caught.value.params, "en")["cure"]
