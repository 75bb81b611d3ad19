"""What a year leaves in the registry makes no request slower: the database does as much for it with many old rows as with few."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from backend.domain import OperationKind, OperationState, new_operation_id
from backend.registry.models import Operation
from tests.service.engine.support import Site

MANY = 2000


def work_of(site: Site, action: Callable[[], Any]) -> int:
    """How many tens of instructions SQLite carries out for it: the same at each run, whatever else the machine does."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    def opened(connection: sqlite3.Connection, *_more: object) -> None:
        connection.set_progress_handler(count, 10)

    site.registry.close()
    event.listen(site.registry._engine, "connect", opened)
    try:
        action()
    finally:
        event.remove(site.registry._engine, "connect", opened)
        site.registry.close()
    return counted[0]


def fill(site: Site) -> None:
    """Operations that have ended well, of that server and of one that is gone."""
    ended = datetime.now(UTC) - timedelta(days=2)
    told = {"kind": OperationKind.START, "group_name": "g", "env_name": "e", "requested_by": "alice", "state": OperationState.SUCCEEDED}
    at = {"steps": [], "created_at": ended, "finished_at": ended}
    rows = [{"id": new_operation_id(), "server_id": each, **told, **at} for each in (site.one().id, None) for _ in range(MANY)]
    with site.registry.session() as session:
        session.execute(insert(Operation), rows)


def latest(site: Site) -> None:
    with site.registry.reading() as session:
        assert session.scalars(select(Operation).order_by(Operation.created_at.desc()).limit(1)).one()


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(lambda site: site.ask("start"), id="a start of what runs"),
        pytest.param(lambda site: site.reconciler()._tidy(), id="housekeeping"),
        pytest.param(latest, id="the latest operation"),
    ],
)
def test_old_operations_cost_nothing(site: Site, action: Callable[[Site], Any]) -> None:
    site.made()
    action(site)  # what only the first one does
    before = work_of(site, lambda: action(site))
    fill(site)
    assert work_of(site, lambda: action(site)) < before + MANY / 10
