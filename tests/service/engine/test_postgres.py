"""The registry on PostgreSQL: the same migrations, two creates at once, and the whole life of a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import DatabaseError

from backend.api.numbers import collectors
from backend.backup.make import backup
from backend.backup.restore import restore_backup
from backend.domain import BoxState
from backend.errors import ServiceError
from backend.registry.database import Registry
from backend.registry.models import Base, Port
from tests.service.engine.support import Site, make_database, rows_of, runs_in
from tests.support.monitor_page import sql_of_the_page
from tests.support.postgres import running_postgres

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with running_postgres() as address:
        yield address


def emptied(address: str) -> str:
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return address


@pytest.fixture
def address(cluster: str) -> str:
    """The database, empty."""
    return emptied(cluster)


@pytest.fixture
def other_address(cluster: str) -> str:
    """Another database of that cluster, empty."""
    return emptied(cluster.replace("/registry?", "/postgres?"))


def test_the_migrations_end_in_the_form_that_the_models_say(address: str):
    registry = Registry(address)
    registry.migrate()
    registry.migrate()
    assert registry.revision() == registry.newest_revision()
    with registry.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
    registry.close()


def test_a_reader_sees_one_moment(address: str):
    registry = Registry(address)
    registry.migrate()
    with registry.reading() as reader:
        assert reader.scalars(select(Port.port)).all() == []
        with registry.session() as writer:
            writer.add(Port(port=21000, server_id="a"))
        assert reader.scalars(select(Port.port)).all() == []
    with registry.reading() as reader:
        assert reader.scalars(select(Port.port)).all() == [21000]
    registry.close()


def test_a_server_lives_and_is_deleted_and_restored(address: str, tmp_path: Path):
    site = Site(tmp_path / "state", database_url=address)
    for ask in (
        site.create,
        lambda: site.set_users("alice"),
        *(lambda what=what: site.ask(what) for what in ("stop", "start", "delete", "restore")),
    ):
        operation = ask()
        site.reconciler().reconcile_all()
        assert site.operation(operation).state == "succeeded", site.operation(operation).error
    assert site.one().status == "running"
    site.registry.close()


def test_the_metrics_are_read_and_counted_there_too(address: str, tmp_path: Path):
    site = Site(tmp_path / "state", database_url=address)
    site.store.error = ServiceError("storage_bucket_missing", bucket="b", endpoint="e")
    site.create("other")
    site.reconciler().reconcile_all()
    site.store.error = None
    site.create()
    site.reconciler().reconcile_all()
    next(iter(site.runtime.boxes.values())).state = BoxState.FAILED
    site.runtime.start_error = ServiceError("port_taken", port=1)
    site.reconciler().reconcile_all()
    numbers = collectors(site.settings, site.registry)
    assert numbers.get_sample_value("aihub_operations_total", {"kind": "create", "state": "succeeded"}) == 1
    assert numbers.get_sample_value("aihub_operations_total", {"kind": "create", "state": "failed"}) == 1
    assert numbers.get_sample_value("aihub_servers", {"status": "failed"}) == 1
    troubled = [numbers.get_sample_value("aihub_servers_troubled", {"reason": reason}) for reason in ("box_ill", "port_taken")]
    assert sum(value or 0 for value in troubled) == 1
    site.registry.close()


def test_two_creates_of_one_name_at_once(address: str, tmp_path: Path):
    """One of them is told that the name is taken, however they meet; ports are never given twice."""
    site = Site(tmp_path / "state", database_url=address, ports=8)
    refused: list[str] = []
    together = threading.Barrier(6)

    def create(env: str) -> None:
        together.wait()
        try:
            site.create(env)
        except ServiceError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=create, args=(env,)) for env in ("same", "same", "same", "one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 2
    servers = [site.one(env) for env in ("same", "one", "two", "three")]
    assert len({server.port for server in servers}) == 4
    site.registry.close()


def test_a_backup_holds_the_registry_and_is_put_back_into_either_kind_of_database(address: str, other_address: str, tmp_path: Path):
    site = Site(tmp_path / "state", database_url=address)
    make_database(site.database(site.made()), runs=["a run"])
    site.set_users("alice")
    site.reconciler().reconcile_all()
    backup(site.registry, site.settings, tmp_path / "backup")
    rows = rows_of(site.registry)
    for name, url in (("file", None), ("again", other_address)):
        settings = replace(site.settings, state_dir=tmp_path / name, socket=None, database_url=url)
        restore_backup(tmp_path / "backup", settings)
        other = Site(tmp_path / name, database_url=settings.database_url, port_first=site.settings.port_first)
        assert rows_of(other.registry) == rows
        assert not (tmp_path / name / ".registry").exists()
        other.ask("stop")  # the audit goes on from its highest number
        other.reconciler().reconcile_all()
        assert other.one().status == "stopped"
        assert runs_in(other.database(other.one())) == ["a run"]
        other.registry.close()
    with pytest.raises(ServiceError, match="state_not_empty"):
        restore_backup(tmp_path / "backup", replace(site.settings, state_dir=tmp_path / "third", socket=None, database_url=other_address))
    site.registry.close()


def test_the_rows_of_a_backup_are_from_one_moment(address: str, tmp_path: Path):
    """A server that is made while they are copied is in none of the tables."""
    site, copy = Site(tmp_path / "state", database_url=address), Registry(f"sqlite:///{tmp_path}/copy.db")
    copy.migrate()
    writing = [site.create]

    @event.listens_for(site.registry._engine, "after_cursor_execute")
    def _(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "FROM ports" in statement and writing:
            writing.pop()()

    copy.fill_from(site.registry)
    assert (writing, site.one().status) == ([], "creating")
    assert {name: rows for name, rows in rows_of(copy).items() if rows} == {}
    for registry in (site.registry, copy):
        registry.close()


def test_the_audit_can_only_grow(address: str, tmp_path: Path):
    site = Site(tmp_path / "state", database_url=address)
    site.create()
    replace = "INSERT INTO audit SELECT * FROM audit ON CONFLICT (id) DO UPDATE SET action = 'x'"
    for statement in ("UPDATE audit SET action = 'x'", "DELETE FROM audit", replace):
        with pytest.raises(DatabaseError, match="append-only"), site.registry.session() as session:
            session.execute(text(statement))
    with site.registry.session() as session:
        for statement in sql_of_the_page("DISABLE TRIGGER").split(";")[1:-2]:
            session.execute(text(statement.replace("2026-01-01", "2999-01-01")))
        assert session.execute(text("SELECT count(*) FROM audit")).scalar() == 0
    site.create("other")
    with pytest.raises(DatabaseError, match="append-only"), site.registry.session() as session:
        session.execute(text("DELETE FROM audit"))
    site.registry.close()
