"""The registry's disk is full: whoever looks is answered, and whoever changes something is told why it cannot be."""

import pytest
from sqlalchemy import Connection, event

from backend.domain import Caller
from backend.errors import ServiceError
from backend.registry.database import Registry
from backend.wishes.api_tokens import ApiTokens
from tests.service.edge.world import ADMIN, ALICE, BODY, GROUP, World


def fill(registry: Registry) -> None:
    """From now on the database takes not a page more. What finds room in those that it has is taken still."""

    @event.listens_for(registry._engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")


@pytest.fixture
def full(world: World) -> World:
    world.made(users=["job"])
    fill(world.registry)
    return world


def test_a_change_is_refused_with_the_cure(full: World) -> None:
    answers = [full.client.post("/api/v1/servers", json={**BODY, "env_name": f"{number:02}{'x' * 200}"}) for number in range(20)]
    refused = [answer.json for answer in answers if answer.status_code != 202]
    assert {(each["status"], each["code"]) for each in refused} == {(507, "disk_full")}
    assert refused[-1]["detail"] == "The service's host has no space left for this server (writing to the registry)"


def test_looking_is_not_refused(full: World, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(60):
        full.be(Caller(user=f"{number:03}{'m' * 200}", uid=5000 + number, groups=(GROUP,)))
        assert [each["env_name"] for each in full.get("/servers")["servers"]] == ["wine"]
    assert "may know passwords is noted at the next look" in caplog.text, "it was full"


def test_a_token_is_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ApiTokens(world.registry)
    row, text = tokens.create(user=ALICE, days=1, note="", by=ADMIN)

    def session() -> None:
        raise ServiceError("disk_full", why="writing to the registry")

    with monkeypatch.context() as full:
        full.setattr(world.registry, "session", session)
        assert tokens.holder(text.reveal()).id == row.id
    assert tokens.holder(text.reveal()).used_at is None
    assert tokens.holder(text.reveal()).used_at is not None
