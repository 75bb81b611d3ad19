"""The registry's disk is full: whoever looks is answered, and whoever changes something is told why it cannot be."""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from backend.cli.failures import sentence
from backend.domain import Caller
from backend.errors import ServiceError
from backend.registry.database import Registry
from backend.registry.models import Server
from backend.wishes.api_tokens import ApiTokens
from tests.service.edge.admin import Admin
from tests.service.edge.world import ADMIN, ALICE, BODY, GROUP, World, make_world
from tests.support import volume


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


@pytest.fixture
def opened_full(tmp_path: Path) -> Iterator[World]:
    """A real disk without a block free, on which nobody has the registry open: SQLite cannot even make what its readers share."""
    state = tmp_path / "state"
    state.mkdir()
    with volume.small_volume(state, 8):
        world = make_world(tmp_path, disk_least=0)
        with closing(world.registry):
            world.made()
            world.registry.close()
            volume.fill(state)
            yield world
        gc.collect()  # a command that failed is in its error's frames, with its registry


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
def test_a_registry_that_is_opened_on_a_full_disk_says_so_to_all(
    opened_full: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, api = opened_full, "/api/v1/servers"
    answers = [world.client.get(api), world.client.post(api, json={**BODY, "env_name": "another"})]
    assert [(each.status_code, (each.json or {})["code"]) for each in answers] == [(507, "disk_full")] * 2
    for look in (world.registry.revision, world.registry.refuse_newer):
        with pytest.raises(ServiceError, match="disk_full"):
            look()

    monkeypatch.setattr("backend.serving.wiring.make_directory", lambda _settings: world.directory)
    admin = Admin(world, tmp_path)
    for command in (("servers", "list"), ("serve",)):
        error = admin.run(*command, code=1).exception
        assert isinstance(error, Exception)
        assert str(sentence(error)).startswith("The service's host has no space left for this server (writing to the registry)")

    volume.make_room(world.service.settings.state_dir)
    assert [each["env_name"] for each in world.get("/servers")["servers"]] == ["wine"]
    world.made(env_name="another")
    admin.run("servers", "list")


def test_a_disk_that_is_ill_is_not_told_as_full(world: World) -> None:
    """SQLite has one word for a disk that turned read-only, as ext4 does after a fault, and for a file that may grow no more."""
    server_id, bounds = world.made(), resource.getrlimit(resource.RLIMIT_FSIZE)

    def change() -> None:
        with world.registry.session() as session:
            session.get_one(Server, server_id).env_name = "another"

    resource.setrlimit(resource.RLIMIT_FSIZE, (1, bounds[1]))
    try:
        with pytest.raises(OperationalError, match="disk I/O error") as caught:
            change()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)
    assert str(sentence(caught.value)).startswith("the registry cannot be used (disk I/O error); check its disk")
    change()
