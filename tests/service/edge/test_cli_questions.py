"""`aihub servers purge` and the other commands whose question takes its time."""

import io
from collections.abc import Callable
from datetime import timedelta

import pytest

from backend.domain import Status
from backend.registry.models import now
from backend.wishes.lookup import Ask
from tests.service.edge.admin import Admin
from tests.service.edge.asking import delete_for_good
from tests.service.edge.world import ALICE, World


def deleted(world: World) -> str:
    """The id of a server that was made and deleted."""
    server_id = world.made()
    operation = world.service.requests.delete(Ask(caller=ALICE, group="gaa50000", env="wine"))
    world.finish(operation.id, status=Status.DELETED, deleted_at=now(), restorable_until=now(), desired="absent")
    return server_id


class Late(io.BytesIO):
    """A yes, before which somebody does something."""

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__(b"y\n")
        self._before = before

    def read1(self, size: int | None = -1, /) -> bytes:
        if not self.tell():
            self._before()
        return super().read1(size)


def test_who_says_yes_to_a_purge_purges_what_was_there_when_it_was_asked(admin: Admin, world: World) -> None:
    asked_about = deleted(world)

    admin.run("servers", "purge", "gaa50000/wine", "--no-wait", text=Late(lambda: deleted(world)))
    assert [each["server_id"] for each in admin.json("operations", "--state", "pending")] == [asked_about]


@pytest.mark.parametrize("command", ["delete", "rollback"])
def test_who_says_yes_means_the_server_that_was_there_when_it_was_asked(admin: Admin, world: World, command: str) -> None:
    def another() -> None:
        delete_for_good(world)
        world.made()

    world.made()
    refused = admin.run("servers", command, "gaa50000/wine", "--no-wait", text=Late(another), code=1)
    assert "is a new one by now: the one that you meant was deleted" in str(refused.exception)
    assert admin.json("operations", "--state", "pending") == []


def test_a_roll_back_that_was_done_before_the_yes_is_not_taken_back(admin: Admin, world: World) -> None:
    def another() -> None:
        admin.run("servers", "rollback", "gaa50000/wine", "--no-wait", "--yes")
        (begun,) = admin.json("operations", "--state", "pending")
        world.finish(begun["id"], mlflow_version="3.16.0", previous_version="3.17.2")

    operation = world.create()
    world.finish(operation["id"], previous_version="3.16.0", previous_revision="abc", previous_until=now() + timedelta(days=1))
    refused = admin.run("servers", "rollback", "gaa50000/wine", "--no-wait", text=Late(another), code=1)
    assert "would now go back to MLflow 3.17.2, not to 3.16.0" in str(refused.exception)
