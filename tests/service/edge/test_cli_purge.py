"""`aihub servers purge`, whose question takes its time."""

import io

from backend.domain import Status
from backend.registry.models import now
from tests.service.edge.admin import Admin
from tests.service.edge.world import ALICE, World


def deleted(world: World) -> str:
    """The id of a server that was made and deleted."""
    server_id = world.made()
    operation = world.service.requests.delete(ALICE, "gaa50000", "wine", request_id=None)
    world.finish(operation.id, status=Status.DELETED, deleted_at=now(), restorable_until=now(), desired="absent")
    return server_id


def test_who_says_yes_to_a_purge_purges_what_was_there_when_it_was_asked(admin: Admin, world: World) -> None:
    asked_about = deleted(world)

    class Late(io.BytesIO):
        """A yes, before which somebody deletes another server of that name."""

        def read1(self, size: int | None = -1, /) -> bytes:
            if not self.tell():
                deleted(world)
            return super().read1(size)

    admin.run("servers", "purge", "gaa50000/wine", "--no-wait", text=Late(b"y\n"))
    assert [each["server_id"] for each in admin.json("operations", "--state", "pending")] == [asked_about]
