"""Leases as the API takes, renews, ends and shows them."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from backend.domain import Desired
from backend.registry.models import AuditEntry, Server
from backend.wishes.leases import MOST_LEASES
from tests.service.edge.world import ADMIN, ALICE, BOB, GROUP, World, make_world

CAROL = ALICE.__class__(user="carol", uid=1003, groups=(GROUP,))
PATH = f"/api/v1/servers/{GROUP.name}/wine"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_world(tmp_path)
    made.made()
    return made


def put(world: World, lease: str = "job-1", **body: Any) -> Any:
    return world.client.put(f"{PATH}/leases/{lease}", json={"seconds": 600, "at_end": "stop", **body})


def leases(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get(f"/servers/{GROUP.name}/wine")["leases"]
    return found


def actions(world: World) -> list[str]:
    with world.registry.reading() as session:
        return list(session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))


def test_a_lease_is_taken_renewed_shown_and_ended(world: World) -> None:
    first = put(world, note="Slurm job 17")
    assert first.status_code == 200
    assert first.json | {"until": 0, "created_at": 0} == {
        "id": "job-1",
        "user": "alice",
        "at_end": "stop",
        "note": "Slurm job 17",
        "until": 0,
        "created_at": 0,
    }
    again = put(world, seconds=7200, at_end="keep").json
    assert again["until"] > first.json["until"]
    assert [(lease["id"], lease["at_end"]) for lease in leases(world)] == [("job-1", "keep")]
    assert [server["leases"][0]["id"] for server in world.get("/servers")["servers"]] == ["job-1"]

    ended = world.client.delete(f"{PATH}/leases/job-1")
    assert (ended.status_code, ended.json) == (200, {"leases": []})
    assert world.client.delete(f"{PATH}/leases/job-1").status_code == 200
    assert leases(world) == []
    assert actions(world) == ["create", "lease", "end_lease"], "a renewal is no news"


def test_a_lease_is_its_holders(world: World) -> None:
    put(world)
    world.be(CAROL)
    for answer in (put(world), world.client.delete(f"{PATH}/leases/job-1")):
        assert (answer.status_code, answer.json["code"]) == (409, "lease_of_other")
    assert put(world, "job-2").status_code == 200
    world.be(ADMIN)
    assert [each["id"] for each in world.client.delete(f"{PATH}/leases/job-1").json["leases"]] == ["job-2"]


def test_a_stranger_learns_and_holds_nothing(world: World) -> None:
    world.be(BOB)
    for answer in (put(world), world.client.delete(f"{PATH}/leases/job-1")):
        assert (answer.status_code, answer.json["code"]) == (403, "not_a_member")


@pytest.mark.parametrize(
    ("lease", "body", "field"),
    [
        ("-x", {}, "lease_id"),
        ("a b", {}, "lease_id"),
        ("a" * 65, {}, "lease_id"),
        ("ok", {"seconds": 4}, "seconds"),
        ("ok", {"seconds": 2_678_401}, "seconds"),
        ("ok", {"seconds": "600"}, "seconds"),
        ("ok", {"at_end": "delete"}, "at_end"),
        ("ok", {"note": "two\nlines"}, "note"),
        ("ok", {"until": "2030-01-01T00:00:00+00:00"}, "until"),
    ],
)
def test_what_is_not_a_lease_is_refused(world: World, lease: str, body: dict[str, Any], field: str) -> None:
    answer = put(world, lease, **body)
    assert (answer.status_code, list(answer.json["fields"])) == (422, [field])
    assert leases(world) == []


def test_whatever_is_under_way_a_lease_is_renewed_but_not_on_a_server_that_goes(world: World) -> None:
    world.client.post(f"{PATH}/stop")
    assert put(world).status_code == 200
    with world.registry.session() as session:
        session.scalars(select(Server)).one().desired = Desired.ABSENT
    assert put(world).json["code"] == "server_deleting"


def test_leases_are_limited(world: World) -> None:
    for number in range(MOST_LEASES):
        assert put(world, f"job-{number}").status_code == 200
    refused = put(world, "one-more")
    assert (refused.status_code, refused.json["code"]) == (409, "too_many_leases")
    assert put(world, "job-3").status_code == 200
