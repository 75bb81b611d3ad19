"""What a look leaves alone: what was asked for meanwhile is another's to do and say, and the last copy of a database nobody's to clear."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backend.domain import BoxState
from backend.registry.models import Server, Token, now
from backend.wishes import access
from tests.service.engine.support import Site, make_database, runs_in


@pytest.fixture
def server(site: Site) -> Server:
    made = site.made()
    make_database(site.database(made), runs=["first"])
    return made


@pytest.mark.parametrize("asked", ["stop", "delete"])
def test_a_server_of_which_something_is_asked_is_not_looked_at(site: Site, server: Server, asked: str):
    site.ask(asked)
    assert site.reconciler()._looker.look(server.id) is None


def test_work_that_was_found_is_not_done_when_something_was_asked_for_since(site: Site, server: Server):
    site.runtime.kill(server.id)
    work = site.reconciler()._looker.look(server.id)
    assert work is not None
    site.set_users("job")
    work()
    assert site.runtime.running() == []


def test_what_was_seen_before_a_delete_was_asked_for_is_not_said_after_it(site: Site, server: Server):
    seen = site.one()
    site.runtime.boxes[server.id].state = BoxState.ASLEEP
    site.ask("delete")
    site.reconciler()._looker.look(server.id, seen)
    assert site.one().status == "deleting"


def test_a_disk_that_gets_ever_shorter_is_noted_once_a_minute(site: Site, server: Server, monkeypatch: pytest.MonkeyPatch):
    """Its numbers change with each look, at each server on it."""
    noted = []
    for free, later in ((5, False), (4, False), (3, True)):
        monkeypatch.setattr("backend.files.disk.free_bytes", lambda _settings, free=free: free * 1024**2)
        if later:
            with site.registry.session() as session:
                session.get_one(Server, server.id).observed_at = now() - timedelta(minutes=2)
        site.reconciler().reconcile_all()
        noted.append((site.one().reason or {})["params"])
    assert noted == [{"free": 5}, {"free": 5}, {"free": 3}]


def test_what_is_kept_stays_until_the_database_is_back(site: Site, server: Server):
    site.kept.make(server.id, site.boxes.directory(server.id), {})
    site.database(server).unlink()
    site.reconciler().reconcile_all()
    assert runs_in(site.kept.folder(server.id) / "mlflow.db") == ["first"]


def test_the_box_of_a_deleted_server_stays_where_no_copy_is_kept(site: Site, server: Server):
    with site.registry.session() as session:
        row = session.get_one(Server, server.id)
        row.deleted_at, row.restorable_until, row.desired, row.status = now(), now() + timedelta(days=1), "absent", "deleted"
    site.reconciler().reconcile_all()
    assert (site.runtime.running(), runs_in(site.database(server))) == ([], ["first"])


def test_a_token_that_was_revoked_while_its_box_was_told_of_it_is_still_to_be_told(site: Site, server: Server):
    with site.registry.session() as session:
        times = {"created_at": now(), "expires_at": now() + timedelta(days=1)}
        session.add(Token(id="abcdefghjkmn", server_id=server.id, name="", user="alice", uid=1001, sha256="0" * 64, **times))
    seen = site.one()
    with site.registry.session() as session:
        session.get_one(Token, "abcdefghjkmn").revoked_at = now()
    access.note_told(site.registry, seen)
    assert not access.is_told(site.one())
    access.note_told(site.registry, site.one())
    assert access.is_told(site.one())
