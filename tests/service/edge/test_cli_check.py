"""`aihub check`: what it finds right, and what is wrong, with the cure."""

import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backend.checks import containers
from backend.checks.service import gateways
from backend.cli.failures import sentence
from backend.domain import Status
from demo.ports import free_ports
from tests.service.edge.admin import Admin
from tests.service.edge.world import World
from tests.support.ordinary import GROUP, USER


def test_check(admin: Admin, world: World) -> None:
    admin.run("init")
    world.made()
    found = {each["name"]: each for each in admin.json("check")}
    failures = [each for each in found.values() if each["state"] == "failure"]
    assert failures == []
    assert {"state", "disk", "socket", "registry", "keys", "admins", "nginx", "MLflow", "ports", "somaxconn", "orphans", "service"} <= set(
        found
    )
    assert found["service"]["cure"].startswith("run `aihub serve`")
    assert all(each["cure"] for each in found.values() if each["state"] != "ok")


def test_check_finds_what_is_wrong(admin: Admin, world: World) -> None:
    admin.run("init")
    settings = world.service.settings
    world.made()
    (settings.servers_dir / "zzzzzzzzzzzz").mkdir()
    (settings.envs_dir / "mlflow-3.17.2" / "version.json").unlink()
    settings.state_dir.chmod(0o755)
    settings.keys_file.chmod(0o644)
    found = {each["name"]: each for each in json.loads(admin.run("check", "--json", code=1).stdout)}
    assert found["state"]["cure"] == "chmod 0700 it"
    assert "open to others" in found["keys"]["detail"]
    assert "servers need 3.17.2" in found["MLflow in use"]["detail"]
    assert f"run PATH={Path(sys.executable).parent}:$PATH tracking_server/install VERSION" in found["MLflow in use"]["cure"], "uv is found"
    assert "zzzzzzzzzzzz" in found["orphans"]["detail"]
    settings.state_dir.chmod(0o700)
    settings.keys_file.chmod(0o600)
    assert "zzzzzzzzzzzz" in admin.run("check", "--remove-orphans", text="n\n", code=1).output
    assert (settings.servers_dir / "zzzzzzzzzzzz").exists()
    admin.run("check", "--remove-orphans", "--yes", code=1)
    assert not (settings.servers_dir / "zzzzzzzzzzzz").exists()
    latest = admin.json("audit")[0]
    assert (latest["action"], latest["server_id"], latest["scheme"]) == ("remove_orphan", "zzzzzzzzzzzz", "cli")


def test_check_finds_a_state_on_a_network(admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    admin.run("init")
    place, table = world.service.settings.state_dir, tmp_path / "mountinfo"
    table.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:40 /x {place} rw - nfs4 server:/x rw\n")
    monkeypatch.setattr("backend.checks.service.MOUNTS", table)
    told = json.loads(admin.run("check", "--json", code=1).stdout)
    assert {"move it to a local disk"} == {each["cure"] for each in told if f"{place} is on a network file system (nfs4)" in each["detail"]}


@pytest.mark.parametrize(
    ("choice", "endpoint", "warned"),
    [("gateway", None, True), ("gateway", "https://s3.example.org", False), ("gateway_private", None, False), ("genai_jobs", None, False)],
)
def test_an_open_gateway_where_members_name_the_store(choice: str, endpoint: str | None, warned: bool, world: World) -> None:
    choices = {"gateway": choice.startswith("gateway"), choice: True}
    size = replace(world.service.settings.sizes[0], **choices)
    found = [*gateways(replace(world.service.settings, sizes=(size,), endpoint_url=endpoint))]
    assert [each.cure for each in found] == (["set endpoint_url"] if warned else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes another account's files")
@pytest.mark.parametrize("group", [USER.pw_gid, 0], ids=["a member", "no member"])
def test_the_services_account_has_the_daemons_socket_by_no_group_of_its_own(group: int, world: World, tmp_path: Path) -> None:
    """systemd gives each unit all groups of its account, and both units have the same."""
    path = tmp_path / "docker.sock"
    settings = replace(world.service.settings, runtime="docker", docker_host=f"unix://{path}")
    os.chown(settings.state_dir, USER.pw_uid, -1)
    with socket.socket(socket.AF_UNIX) as listener:
        assert [*containers.daemon(settings)] == [], "another check says that there is none"
        listener.bind(str(path))
        os.chown(path, 0, group)
        (found,) = containers.daemon(settings)
    assert found.state == ("warning" if group else "ok")
    assert found.cure.startswith(f"take {USER.pw_name} out of {GROUP}" if group else "")
    assert [*containers.daemon(replace(settings, runtime="process"))] == []


def test_a_registry_in_postgresql_without_its_driver_is_told(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.file.write_text(f"{admin.file.read_text()}database_url: postgresql+psycopg://aihub@127.0.0.1/aihub\n")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = admin.run("servers", "list", code=1).exception
    assert isinstance(error, Exception)
    assert "install the service with `--extra postgresql`" in str(sentence(error))


def test_a_registry_that_is_damaged_or_away_is_told_and_the_other_checks_are_made(admin: Admin, world: World) -> None:
    admin.run("init")
    healthy = {each["name"] for each in admin.json("check")}
    world.registry.close()
    path = world.service.settings.state_dir / "registry.db"
    for end in ("-wal", "-shm", ""):  # a new file: who still has the old one open may write what it knows back when it ends
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.write_bytes(b"no database" * 1000)
    damaged = "the registry cannot be used (file is not a database); its file is damaged: stop the service and put a backup back"
    (port,) = free_ports(1)
    away = f"database_url: postgresql+psycopg://aihub:hidden@127.0.0.1:{port}/aihub\n"
    for line, words in (("", damaged), (away, "; start its database, or correct database_url")):
        admin.file.write_text(admin.file.read_text() + line)
        error = admin.run("servers", "list", code=1).exception
        assert isinstance(error, Exception)
        assert words in str(sentence(error))
        answer = admin.run("check", "--json", code=1).stdout
        found = {each["name"]: each for each in json.loads(answer)}
        assert healthy - set(found) <= {"MLflow in use", "port to give"}
        assert words in found["registry"]["detail"]
        assert found["users and groups"]["state"] == "ok"
        assert "hidden" not in answer


def test_check_sees_a_stopped_servers_port_taken_and_the_disks_bound(admin: Admin, world: World) -> None:
    admin.run("init")
    server_id = world.made()
    with socket.create_server((world.service.settings.listen_address, world.row(server_id).port)):
        assert "ports taken" not in [each["name"] for each in admin.json("check")]  # it runs: the port is its own
        world.finish(world.client.post("/api/v1/servers/gaa50000/wine/stop").json["id"], status=Status.STOPPED)
        (taken,) = (each for each in admin.json("check") if each["name"] == "ports taken")
        assert (taken["state"], str(world.row(server_id).port) in taken["detail"]) == ("warning", True)
    admin.file.write_text(f"{admin.file.read_text()}disk_least: {2**60}\n")
    (full,) = (each for each in json.loads(admin.run("check", "--json", code=1).stdout) if each["name"] == "disk")
    assert (full["state"], "1073741824.0 wanted" in full["detail"]) == ("failure", True)
