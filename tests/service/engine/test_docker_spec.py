"""What a server in containers is, as values: asserted whole."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from backend import versions
from backend.checks import service as checks
from backend.cli.owner import as_owner
from backend.domain import SizeClass
from backend.errors import ServiceError
from backend.files import disk
from backend.files.snapshots import SIDES
from backend.networks import layout
from backend.registry.models import Server
from backend.runtimes.containers import ContainerRuntime
from backend.runtimes.docker_spec import Pod, create_arguments, one_shot
from backend.runtimes.keeper import ContainerKeeper
from backend.settings import Settings
from backend.wishes import uidpool
from tests.service.engine.support import Site

SIZE = SizeClass(name="small", memory=512 * 1024**2, cpus=0.5, pids=128, workers=1, log=3 * 1024**2)
POD = Pod(
    install="0123abcd",
    server_id="k3v9x2m7q4ab",
    mlflow_version="3.17.2",
    image="sha256:abc",
    directory=Path("/var/lib/aihub/servers/k3v9x2m7q4ab"),
    address=("10.1.2.3", 21000),
    uids=(1000000, 1000001),
    size=SIZE,
    networks=("gates", "mlflows"),
    resolvers=("10.0.0.53",),
)


HOME = "/var/lib/aihub/servers/k3v9x2m7q4ab"
COMMON = {
    "image": "sha256:abc",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "ipc_mode": "private",
    "shm_size": 8388608,
    "restart_policy": {"Name": "unless-stopped"},
    "log_config": {"type": "json-file", "config": {"max-size": "1048576", "max-file": "2"}},
    "use_config_proxy": False,
}
LABELS = {
    "org.aihub.install": "0123abcd",
    "org.aihub.server": "k3v9x2m7q4ab",
    "org.aihub.mlflow-version": "3.17.2",
    "org.aihub.size": "small",
}


def ulimits(processes: int) -> list[dict[str, object]]:
    return [{"Name": name, "Soft": most, "Hard": most} for name, most in (("nofile", 16384), ("nproc", processes), ("core", 0))]


def test_the_containers_whole():
    made = create_arguments(POD)
    digests = [arguments["labels"].pop("org.aihub.digest") for arguments in made.values()]
    assert len(set(digests)) == 2
    assert made["gate"] == {
        **COMMON,
        "command": ["gate"],
        "name": "aihub-0123abcd-k3v9x2m7q4ab-gate",
        "hostname": "gate",
        "user": "1000000:1000000",
        "network": "gates",
        "labels": {**LABELS, "org.aihub.role": "gate"},
        "mem_limit": 268435456,
        "memswap_limit": 268435456,
        "pids_limit": 64,
        "ulimits": ulimits(64),
        "nano_cpus": 1_000_000_000,
        "ports": {"21000/tcp": ("10.1.2.3", 21000)},
        "mounts": [
            {"Type": "bind", "Source": f"{HOME}/config", "Target": "/box/config", "ReadOnly": True},
            {"Type": "bind", "Source": f"{HOME}/spawn", "Target": "/box/spawn", "ReadOnly": True},
            {"Type": "bind", "Source": f"{HOME}/run", "Target": "/box/run", "ReadOnly": False},
            {"Type": "bind", "Source": f"{HOME}/log", "Target": "/box/log", "ReadOnly": False},
        ],
    }


def test_the_container_of_mlflow_whole():
    made = create_arguments(POD)
    made["mlflow"]["labels"].pop("org.aihub.digest")
    assert made["mlflow"] == {
        **COMMON,
        "log_config": {"type": "json-file", "config": {"max-size": "3145728", "max-file": "2"}},
        "command": ["mlflow", "1000000"],
        "name": "aihub-0123abcd-k3v9x2m7q4ab-mlflow",
        "hostname": "mlflow",
        "user": "1000001:1000001",
        "network": "mlflows",
        "labels": {**LABELS, "org.aihub.role": "mlflow"},
        "mem_limit": 536870912,
        "memswap_limit": 536870912,
        "pids_limit": 128,
        "ulimits": ulimits(128),
        "nano_cpus": 500_000_000,
        "dns": ["10.0.0.53"],
        "mounts": [
            {"Type": "bind", "Source": f"{HOME}/data", "Target": "/box/data", "ReadOnly": False},
            {"Type": "bind", "Source": f"{HOME}/tmp", "Target": "/box/tmp", "ReadOnly": False},
            {"Type": "bind", "Source": f"{HOME}/spawn", "Target": "/box/spawn", "ReadOnly": False},
        ],
    }


def test_a_ca_file_is_the_hosts_and_mlflows_alone():
    gate, mlflow = (create_arguments(replace(POD, ca_file=Path("/etc/aihub/s3-ca.pem")))[role]["mounts"] for role in ("gate", "mlflow"))
    assert mlflow[-1] == {"Type": "bind", "Source": "/etc/aihub/s3-ca.pem", "Target": "/etc/aihub/s3-ca.pem", "ReadOnly": True}
    usual = create_arguments(POD)
    assert (gate, mlflow[:-1]) == (usual["gate"]["mounts"], usual["mlflow"]["mounts"])


def test_what_runs_once_is_as_closed_and_has_bounds():
    closed = ("read_only", "cap_drop", "security_opt", "log_config", "use_config_proxy")
    assert one_shot(memory=2**28, pids=16) == {
        **{name: COMMON[name] for name in closed},
        "network_mode": "none",
        "mem_limit": 2**28,
        "memswap_limit": 2**28,
        "pids_limit": 16,
        "nano_cpus": 1_000_000_000,
    }


class OneContainer:
    """A daemon in whose one-off containers `work` is done, with the folder for the copy."""

    def __init__(self, work: Callable[[Path], object], status: int = 0) -> None:
        self.work, self.status = work, status
        self.seconds = 0.0

    def images(self, _name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(id="sha256:abc", created="2026")]

    def run(self, what: str, arguments: dict[str, Any], *, seconds: float, writes: str | None) -> tuple[int, str]:
        assert (what in {"copy", "files"}, writes) == (True, None)
        self.seconds = seconds
        (out,) = (Path(mount["Source"]) for mount in arguments["mounts"] if mount["Target"] == "/out")
        for found in sorted(out.iterdir()):
            self.work(found)
        return self.status, ""


def keeper_of(work: Callable[[Path], object]) -> ContainerKeeper:
    return ContainerKeeper(engine=OneContainer(work), image="box:{version}")  # type: ignore[arg-type]


def unused(_found: Path) -> None:
    raise AssertionError("a container was run")


def box_with_database(home: Path, size: int = 0) -> Path:
    (home / "box" / "data").mkdir(parents=True)
    with (home / "box" / "data" / "mlflow.db").open("wb") as database:
        database.truncate(size)
    return home / "box"


ON_A_BOX: dict[str, Callable[[ContainerKeeper, Path], object]] = {
    "prepare": lambda keeper, box: keeper.prepare(box, (1000000, 1000001)),
    "remove": lambda keeper, box: keeper.remove(box),
    "reopen": lambda keeper, box: keeper.reopen(box),
    "copy": lambda keeper, box: keeper.copy_database(box, box.parent / "taken.db"),
    "files": lambda keeper, box: keeper.copy_files(box, box.parent),
    "place": lambda keeper, box: keeper.place_database(box, box / "data" / "mlflow.db"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to a box's uid")
@pytest.mark.parametrize("of", ["the box", "its data"])
@pytest.mark.parametrize("act", list(ON_A_BOX))
def test_roots_daemon_is_given_no_link_in_a_boxs_place(tmp_path: Path, act: str, of: str):
    """Whoever put it there would have root do that anywhere on the host."""
    elsewhere = box_with_database(tmp_path / "elsewhere") / ("." if of == "the box" else "data")
    os.chown(tmp_path / "elsewhere" / "box" / "data", 1_000_001, 1_000_001)
    (tmp_path / "elsewhere" / "box" / "data").chmod(0o500)  # for `reopen`
    box = tmp_path / "servers" / "k3v9x2m7q4ab"
    if of == "the box":
        box.parent.mkdir()
    else:
        box.mkdir(parents=True)
    link = box if of == "the box" else box / "data"
    link.symlink_to(elsewhere)
    os.chown(link, 1_000_001, 1_000_001, follow_symlinks=False)
    with pytest.raises(ServiceError, match=f"keeper_failed.*{link} is a link"):
        ON_A_BOX[act](keeper_of(unused), box)
    with pytest.raises(ServiceError, match=f"keeper_failed.*{link} is a link"):
        ContainerRuntime(engine=None, site=None).start(  # type: ignore[arg-type]
            server_id="k3v9x2m7q4ab", directory=box, mlflow_version="3.17.2", size=SIZE
        )
    assert (tmp_path / "elsewhere" / "box" / "data" / "mlflow.db").exists()


@pytest.mark.parametrize("uids", [None, (0, 1), (999, 1000)])
def test_no_box_gets_a_uid_of_the_systems(tmp_path: Path, uids: tuple[int, int] | None):
    with pytest.raises(ValueError, match="none of the system's"):
        keeper_of(unused).prepare(tmp_path / "box", uids)


def test_a_copy_is_what_the_container_wrote_into_the_services_file(tmp_path: Path):
    box = box_with_database(tmp_path)
    keeper_of(lambda found: found.write_bytes(b"copy")).copy_database(box, tmp_path / "taken.db")
    assert (tmp_path / "taken.db").read_bytes() == b"copy"
    assert (tmp_path / "taken.db").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box", "taken.db"]


def test_files_are_taken_as_they_are_each_by_one_of_the_services(tmp_path: Path):
    box, folder = box_with_database(tmp_path), tmp_path / "taken"
    folder.mkdir()
    for side in SIDES:
        (box / "data" / f"mlflow.db{side}").touch()
    keeper_of(lambda found: found.write_text(found.name)).copy_files(box, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {f"mlflow.db{side}": f"mlflow.db{side}" for side in ("", *SIDES)}


def test_a_large_database_gets_more_time_and_what_is_late_is_said_so(tmp_path: Path):
    engine = OneContainer(lambda _found: None, status=124)
    box = box_with_database(tmp_path, size=4 * 1024**3)
    with pytest.raises(ServiceError) as caught:
        ContainerKeeper(engine=engine, image="box:{version}").copy_database(box, tmp_path / "taken.db")  # type: ignore[arg-type]
    assert (engine.seconds, caught.value.code) == (1324, "snapshot_failed")
    assert caught.value.params["why"] == "it was not done within 1324 seconds"


@pytest.mark.parametrize("other", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), Path.mkdir, Path.touch])
def test_nothing_else_is_taken_for_the_copy(tmp_path: Path, other: Callable[[Path], object]):
    def swap(found: Path) -> None:
        found.unlink()
        other(found)

    with pytest.raises(ServiceError, match="snapshot_failed"):
        keeper_of(swap).copy_database(box_with_database(tmp_path), tmp_path / "taken.db")
    assert [path.name for path in tmp_path.iterdir()] == ["box"]


def test_a_copy_without_room_is_not_begun(tmp_path: Path):
    box = box_with_database(tmp_path, size=2**43)  # sparse
    for copy, place in ((ContainerKeeper.copy_database, tmp_path / "taken.db"), (ContainerKeeper.copy_files, tmp_path)):
        with pytest.raises(ServiceError, match=r"snapshot_failed.*claim to be 8796093022208 bytes, of which 0 are stored"):
            copy(keeper_of(unused), box, place)
    with pytest.raises(ServiceError, match="disk_full"):
        keeper_of(unused).place_database(tmp_path / "other", box / "data" / "mlflow.db", touching=lambda: unused(box))
    os.chown(box / "data", 1_000_001, 1_000_001)
    with pytest.raises(ServiceError, match="disk_full"):
        keeper_of(unused).place_database(box, box / "data" / "mlflow.db", touching=lambda: unused(box))


@pytest.mark.parametrize(
    "change", [{"image": "sha256:def"}, {"address": ("10.1.2.3", 21001)}, {"size": replace(SIZE, memory=2**30)}, {"ca_file": Path("/ca")}]
)
def test_what_differs_has_another_digest(change: dict):
    def digests(pod: Pod) -> list[str]:
        return [arguments["labels"]["org.aihub.digest"] for arguments in create_arguments(pod).values()]

    assert digests(POD) == digests(replace(POD))
    assert digests(POD) != digests(replace(POD, **change))


def test_the_allow_list_is_the_admins(tmp_path: Path):
    settings = Settings(state_dir=tmp_path, endpoint_url="https://s3.example.org", egress=("10.9.0.0/16:5432", "db.example.org:5432"))
    assert layout.allow_list(settings) == ("s3.example.org:443", "10.9.0.0/16:5432", "db.example.org:5432")
    found = layout.targets(layout.allow_list(settings), lambda host, _port: ["192.0.2.2", "192.0.2.1"] if host[0] == "s" else ["192.0.2.9"])
    assert [str(one) for one in found] == ["192.0.2.1 . 443", "192.0.2.2 . 443", "10.9.0.0/16 . 5432", "192.0.2.9 . 5432"]


@pytest.mark.parametrize("entry", ["no-port", "10.0.0.1/33:1", "h:70000", "a b:1", "127.0.0.1:80", "169.254.169.254:80", "x:1; drop"])
def test_an_entry_that_would_open_what_it_should_not_is_refused(entry: str):
    with pytest.raises(layout.EntryError):
        list(layout.targets([entry], lambda _host, _port: ["127.0.0.1"]))


def test_a_name_without_an_address_is_said():
    def nothing(_host: str, _port: int) -> list[str]:
        raise OSError(1, "no such name")

    with pytest.raises(layout.EntryError, match="has no address now"):
        list(layout.targets(["gone.example.org:443"], nothing))


def test_uids_are_pairs_that_nobody_else_has(tmp_path: Path):
    site = Site(tmp_path / "state")
    settings = Settings(state_dir=tmp_path, runtime="docker", uid_first=5000, uid_last=5003)
    site.create("one", "bucket-one")
    with site.registry.session() as session:
        assert uidpool.allocate(session, site.settings) is None, "the process runtime has none"
        server = session.scalars(select(Server)).one()
        server.uid = uidpool.allocate(session, settings)
        assert uidpool.pair(server.uid) == (5000, 5001)
        session.flush()
        assert uidpool.allocate(session, settings) == 5002
        assert uidpool.allocate(session, replace(settings, uid_first=4999, uid_last=5004)) == 5003, "the range began elsewhere before"
        with pytest.raises(ServiceError, match="uids_exhausted"):
            uidpool.allocate(session, Settings(state_dir=tmp_path, runtime="docker", uid_first=5000, uid_last=5001))
    site.registry.close()


def test_versions_come_from_the_images_that_were_seen(tmp_path: Path):
    settings = Settings(state_dir=tmp_path, runtime="docker")
    settings.run_dir.mkdir()
    assert versions.installed(settings) == {}
    versions.publish(settings, {"3.9.0": "abc", "3.17.2": "def"})
    assert list(versions.installed(settings).items()) == [("3.17.2", "def"), ("3.9.0", "abc")]


def test_images_are_missed_only_once_somebody_has_looked(tmp_path: Path):
    site = Site(tmp_path / "state")
    settings = replace(site.settings, runtime="docker", mlflow_versions=())
    settings.run_dir.mkdir(exist_ok=True)
    for images, state in ((None, "warning"), ({}, "failure"), ({"3.17.2": "def"}, "ok")):
        if images is not None:
            versions.publish(settings, images)
        assert [finding.state for finding in checks.environments(settings)] == [state]
    site.registry.close()


def test_a_disk_without_room_is_said_before_anything_is_made(tmp_path: Path):
    site = Site(tmp_path / "state", disk_least=2**60)
    with pytest.raises(ServiceError) as caught:
        site.create()
    assert caught.value.code == "host_short_of_disk"
    site.assert_nothing_left()
    site.registry.close()


def test_a_server_that_runs_is_told_of_its_disk(tmp_path: Path):
    kib = 1024
    (tmp_path / "box" / "data").mkdir(parents=True)
    (tmp_path / "box" / "data" / "mlflow.db").write_bytes(os.urandom(256 * kib))
    settings = Settings(state_dir=tmp_path, disk_low=0, server_disk=128 * kib)
    found = disk.trouble(settings, tmp_path / "box")
    assert found is not None
    assert found.code == "server_too_large"
    wide = replace(settings, server_disk=512 * kib)
    assert disk.trouble(wide, tmp_path / "box") is None
    os.truncate(tmp_path / "box" / "data" / "mlflow.db", 2**40)
    assert disk.trouble(wide, tmp_path / "box") is None, "a file may say that it is larger than any disk"
    (tmp_path / "box" / "tmp" / "spool").mkdir(parents=True)
    (tmp_path / "box" / "tmp" / "spool" / "upload").write_bytes(os.urandom(512 * kib))
    spooled = disk.trouble(wide, tmp_path / "box")
    assert spooled is not None
    assert spooled.code == "server_too_large"
    low = disk.trouble(replace(settings, disk_low=2**60), tmp_path / "box")
    assert low is not None
    assert low.code == "disk_low"


def test_the_resolvers_are_those_that_a_container_can_reach(tmp_path: Path):
    settings = Settings(state_dir=tmp_path)
    stub, real, none = (tmp_path / name for name in ("stub", "real", "none"))
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("nameserver 10.0.0.53\nnameserver fe80::1\nnameserver 10.0.0.54\n")
    assert layout.resolvers(settings, (stub, real)) == ("10.0.0.53", "10.0.0.54")
    assert layout.resolvers(settings, (real, stub)) == ("10.0.0.53", "10.0.0.54")
    assert layout.resolvers(settings, (stub, none)) == ()
    assert layout.resolvers(replace(settings, resolvers=("192.0.2.53",)), (real,)) == ("192.0.2.53",)


def test_folders_that_a_server_closed_are_said():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other accounts, which root is for a while here
        home = Path(name)
        for folder in ("box/data", "box/tmp/spool"):
            (home / folder).mkdir(parents=True)
        if os.geteuid() == 0:
            for path in (home, *home.rglob("*")):
                os.chown(path, 65534, 65534)
        settings = Settings(state_dir=home, disk_low=0)
        (home / "box" / "tmp" / "spool").chmod(0)
        with as_owner(home):
            assert disk.trouble(settings, home / "box") is None, "what is deeper may be the server's alone"
        (home / "box" / "data").chmod(0)
        with as_owner(home):
            told = disk.trouble(settings, home / "box")
        for folder in ("box/data", "box/tmp/spool"):
            (home / folder).chmod(0o700)
    assert told is not None
    assert (told.code, told.params["why"]) == ("box_ill", "its folders were closed to the service")
