"""What a year leaves in the registry makes no request slower: the database does as much for it with many old rows as with few."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select

from backend.domain import OperationKind, OperationState, new_operation_id
from backend.registry.models import Operation, Server, Token, now
from backend.wishes import access
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


def tokens(site: Site, user: str, count: int, *, told: bool = True, hours: float = -1) -> None:
    """Of the one server, made in the order of their numbers, and over since an hour."""
    about = {"server_id": site.one().id, "name": "job", "user": user, "uid": 1001, "sha256": "0" * 64, "told": told}
    about |= {"expires_at": now() + timedelta(hours=hours)}
    began = now() - timedelta(hours=3)
    rows = [{"id": f"{user[:6]}{number:06d}", "created_at": began + timedelta(seconds=number)} for number in range(count)]
    with site.registry.session() as session:
        session.execute(insert(Token), [about | row for row in rows])


def test_a_token_for_each_job_leaves_the_latest_hundred_that_are_over(site: Site) -> None:
    """Thousands of a week would be read at each look at their server, and written into its folder."""
    site.made()
    tokens(site, "alice", MANY)
    tokens(site, "bob", 5)
    tokens(site, "in force", access.MOST_TOKENS + 1, hours=1)
    tokens(site, "untold", access.MOST_TOKENS + 1, told=False)
    site.reconciler()._leavers.tidy(now())
    with site.registry.reading() as session:
        kept = session.scalars(select(Token.id).where(Token.user == "alice").order_by(Token.id)).all()
        others = session.scalars(select(func.count()).where(Token.user != "alice")).one()
    assert (len(kept), kept[-1]) == (access.MOST_TOKENS, f"alice{MANY - 1:06d}")
    assert others == 5 + 2 * (access.MOST_TOKENS + 1)


def test_to_note_that_a_box_was_told_costs_nothing_for_what_it_was_told_before(site: Site) -> None:
    """Each new token of a server with some thousand held up all other changes for a second."""
    site.made()

    def note() -> int:
        with site.registry.reading() as session:
            seen = session.get_one(Server, site.one().id)
        return work_of(site, lambda: access.note_told(site.registry, seen))

    note()
    before = note()
    tokens(site, "alice", MANY)
    assert note() < before + MANY / 10
