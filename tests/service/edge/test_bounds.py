"""What a site bounds for a group, in every way in which it gets one more."""

from dataclasses import replace
from pathlib import Path

import pytest

from backend.domain import Status
from backend.registry.models import Port, Server
from tests.service.edge.asking import WINE, code, count, delete_for_good
from tests.service.edge.world import ALICE, BODY, GROUP, make_world


def test_a_restore_minds_the_limit_and_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, max_servers_per_group=1)
    world.made()
    delete_for_good(world)
    world.made(env_name="two")
    assert code(world.client.post(f"{WINE}/restore")) == (409, "too_many_servers")
    delete_for_good(world, WINE.replace("wine", "two"))
    with monkeypatch.context() as full:
        full.setattr("backend.files.disk.free_bytes", lambda _settings: 0)
        assert code(world.client.post(f"{WINE}/restore")) == (507, "host_short_of_disk")
    restoring = world.client.post(f"{WINE}/restore").json
    monkeypatch.setattr("backend.files.disk.free_bytes", lambda _settings: 0)
    assert world.client.post(f"{WINE}/restore").json["id"] == restoring["id"]  # it is under way


def test_what_is_about_to_be_restored_counts(tmp_path: Path) -> None:
    """Two who restore at once, or one restores while another creates: until its first step has run, it is deleted still."""
    world = make_world(tmp_path, max_servers_per_group=1)
    two = WINE.replace("wine", "two")
    for path, name in ((WINE, "wine"), (two, "two")):
        world.made(env_name=name)
        delete_for_good(world, path)
    assert world.client.post(f"{WINE}/restore").status_code == 202
    assert code(world.client.post(f"{two}/restore")) == (409, "too_many_servers")
    assert code(world.client.post("/api/v1/servers", json={**BODY, "env_name": "three"})) == (409, "too_many_servers")


def test_deleted_servers_that_are_kept_are_bounded(tmp_path: Path) -> None:
    """Each holds a port for its time and longer: a loop of create and delete must not use up the site's."""
    world = make_world(tmp_path, max_kept_per_group=2)
    for _ in range(2):
        world.made()
        delete_for_good(world)
    refused = world.client.post("/api/v1/servers", json=BODY)
    assert code(refused) == (409, "too_many_kept")
    assert "2 deleted tracking servers of group gaa50000" in refused.json["detail"]
    assert (count(world, Server), count(world, Port)) == (2, 2)
    world.finish(world.client.post(f"{WINE}/restore").json["id"], status=Status.RUNNING, deleted_at=None)
    world.made(env_name="two")


def test_what_another_group_of_that_name_had_counts_for_nothing(tmp_path: Path) -> None:
    """Its members can neither see nor delete that."""
    world = make_world(tmp_path, max_servers_per_group=2, max_kept_per_group=1)
    world.made(env_name="live")
    world.made(env_name="gone")
    delete_for_good(world, WINE.replace("wine", "gone"))
    assert code(world.client.post("/api/v1/servers", json=BODY)) == (409, "too_many_kept")
    now_of_that_name = replace(GROUP, gid=777)
    world.directory.groups[GROUP.name] = now_of_that_name
    world.be(replace(ALICE, groups=(now_of_that_name,)))
    world.made()
    world.made(env_name="two")
    assert code(world.client.post("/api/v1/servers", json={**BODY, "env_name": "three"})) == (409, "too_many_servers")
    delete_for_good(world)
    assert code(world.client.post("/api/v1/servers", json=BODY)) == (409, "too_many_kept")
    assert world.client.post(f"{WINE}/restore").status_code == 202
