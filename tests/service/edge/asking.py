"""Requests to a service in this process, and what its registry has afterwards."""

from typing import Any

from sqlalchemy import func, select

from backend.domain import Desired, Status
from backend.registry.models import now
from tests.service.edge.world import World

WINE = "/api/v1/servers/gaa50000/wine"


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json.get("code", "")


def count(world: World, table: Any) -> int:
    with world.registry.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def delete_for_good(world: World, path: str = WINE) -> str:
    operation = world.client.delete(path).json
    world.finish(operation["id"], status=Status.DELETED, deleted_at=now(), restorable_until=now(), desired=Desired.ABSENT)
    return str(operation["server_id"])
