"""Who asks looked at a server, and means that one: not another that was made under its name since, nor another version than was said."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.domain import Caller
from backend.registry.models import Lease, now
from tests.service.edge.asking import WINE, code, count, delete_for_good
from tests.service.edge.world import ALICE, GROUP, World, make_world

CAROL = Caller(user="carol", uid=1003, groups=(GROUP,))
USERS = {"users": [{"user_name": "alice", "pass": "a-password"}]}
STORAGE = {"access_key_id": "AKNEW", "secret_access_key": "new-secret"}
CHANGES: dict[str, Callable[[World, str], Any]] = {
    "delete": lambda world, only: world.client.delete(f"{WINE}{only}"),
    "start": lambda world, only: world.client.post(f"{WINE}/start{only}"),
    "stop": lambda world, only: world.client.post(f"{WINE}/stop{only}"),
    "users": lambda world, only: world.client.put(f"{WINE}/users{only}", json=USERS),
    "storage": lambda world, only: world.client.put(f"{WINE}/storage{only}", json=STORAGE),
    "size": lambda world, only: world.client.put(f"{WINE}/size{only}", json={"size": "large"}),
    "upgrade": lambda world, only: world.client.post(f"{WINE}/upgrade{only}", json={"mlflow_version": "3.17.2"}),
    "rollback": lambda world, only: world.client.post(f"{WINE}/rollback{only}"),
    "lease": lambda world, only: world.client.put(f"{WINE}/leases/job-1{only}", json={"seconds": 600, "at_end": "stop"}),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_another_server_of_that_name_is_left_alone(world: World, change: str) -> None:
    """A page that was open while somebody else deleted the server and made another one."""
    world.made()
    first = delete_for_good(world)
    world.be(CAROL)
    second = world.made()
    world.be(ALICE)
    refused = CHANGES[change](world, f"?server_id={first}")
    assert code(refused) == (404, "server_replaced")
    assert "the one that you meant was deleted" in refused.json["detail"]
    assert (world.row(second).desired, count(world, Lease)) == ("running", 0)
    assert world.get("/servers/gaa50000/wine")["operation"] is None
    world.finish(
        world.client.post(f"{WINE}/stop").json["id"], status="stopped", previous_version="3.16.0", previous_until=now() + timedelta(1)
    )
    assert CHANGES[change](world, f"?server_id={second}").status_code in {200, 202}


def test_one_that_was_deleted_is_none(world: World) -> None:
    world.made()
    first = delete_for_good(world)
    assert code(world.client.post(f"{WINE}/stop?server_id={first}")) == (404, "no_such_server")
    assert code(world.client.post(f"{WINE}/stop?server_id=../..")) == (422, "invalid_request")


def test_one_that_another_member_restored_already_is_not_told_as_replaced(world: World) -> None:
    server_id = world.made()
    delete_for_good(world)
    restored = world.client.post(f"{WINE}/restore?server_id={server_id}").json
    world.finish(restored["id"], status="running", desired="running", deleted_at=None, restorable_until=None)
    assert code(world.client.post(f"{WINE}/restore?server_id={server_id}")) == (409, "server_exists")


def test_who_may_not_see_the_new_one_learns_nothing_of_it(world: World) -> None:
    world.made()
    first = delete_for_good(world)
    world.made()
    world.be(Caller(user="dave", uid=1004, groups=()))
    assert code(world.client.delete(f"{WINE}?server_id={first}")) == (403, "not_a_member")


def test_a_delete_that_is_asked_again_is_the_one_under_way(world: World) -> None:
    server_id = world.made()
    first = world.client.delete(f"{WINE}?server_id={server_id}").json
    assert world.client.delete(f"{WINE}?server_id={server_id}").json["id"] == first["id"]


def test_a_roll_back_that_another_did_meanwhile_is_not_taken_back(world: World) -> None:
    """Two members find the new version bad; the second answers the question when the first one's roll back is over."""
    server_id = world.made()
    until = now() + timedelta(days=1)
    with world.registry.session() as session:
        row = session.get_one(type(world.row(server_id)), server_id)
        row.mlflow_version, row.previous_version, row.previous_revision, row.previous_until = "3.17.2", "3.16.0", "abc", until
    begun = world.client.post(f"{WINE}/rollback?mlflow_version=3.16.0").json
    assert world.client.post(f"{WINE}/rollback?mlflow_version=3.16.0").json["id"] == begun["id"], "at the same moment it is one"
    world.finish(begun["id"], mlflow_version="3.16.0", previous_version="3.17.2")
    refused = world.client.post(f"{WINE}/rollback?mlflow_version=3.16.0")
    assert code(refused) == (409, "rollback_differs")
    assert "would now go back to MLflow 3.17.2, not to 3.16.0" in refused.json["detail"]
    assert world.client.post(f"{WINE}/rollback?mlflow_version=3.17.2").status_code == 202
