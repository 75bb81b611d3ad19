"""Somebody of many groups, and an admin, who see hundreds of servers."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from backend.reconcile.leavers import Leavers
from backend.registry.models import Token, now
from tests.service.edge.admin import Admin
from tests.service.edge.world import ALICE, World, make_world

MANY, MOST = 25, 20


@pytest.fixture
def crowded(tmp_path: Path) -> World:
    """More servers than this SQLite takes values in a question; each has a user and a token."""
    world = make_world(tmp_path, max_servers_per_group=MANY)
    for number in range(MANY):
        server_id = world.made(users=["alice"], env_name=f"env-{number:02d}")
        with world.registry.session() as session:
            until = now() + timedelta(days=1)
            session.add(Token(id=f"t{number}", server_id=server_id, name="", user="alice", uid=ALICE.uid, sha256="", expires_at=until))

    def older(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, MOST)

    event.listen(world.registry._engine, "connect", older)
    world.registry.close()
    return world


def test_an_old_sqlite_takes_a_list_of_many_servers(crowded: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of RHEL 8 takes 999 values in a question: with a thousand servers, deleted ones counted, the list was an internal error."""
    assert len(crowded.get("/servers?deleted=true")["servers"]) == MANY
    assert crowded.row(crowded.get("/servers")["servers"][0]["id"]).known_to == ["alice"]
    monkeypatch.setattr("backend.serving.wiring.make_directory", lambda _settings: crowded.directory)
    monkeypatch.setattr("backend.serving.wiring.open_registry", lambda _settings: crowded.registry)
    assert len(Admin(crowded, tmp_path).json("servers", "list")) == MANY


def test_an_old_sqlite_takes_a_look_at_all_who_may_be_in(crowded: World) -> None:
    service = crowded.service
    leavers = Leavers(registry=crowded.registry, directory=crowded.directory, keyring=service.keyring, settings=service.settings)
    assert len(leavers._inside()) == MANY
    crowded.directory.asked.clear()
    assert not leavers.sweep()
    assert crowded.directory.asked == ["caller", "group"], "each question once, however many servers it is about"
