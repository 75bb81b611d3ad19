"""The registry on PostgreSQL: the same migrations, two creates at once, and the whole life of a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from backend.domain import BoxState
from backend.errors import ServiceError
from backend.metrics import collectors
from backend.registry.database import Registry
from backend.registry.models import Base
from tests.service.engine.support import Site
from tests.support.postgres import running_postgres

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with running_postgres() as address:
        yield address


@pytest.fixture
def address(cluster: str) -> str:
    """The database, empty."""
    engine = create_engine(cluster)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return cluster


def test_the_migrations_end_in_the_form_that_the_models_say(address: str):
    registry = Registry(address)
    registry.migrate()
    registry.migrate()
    assert registry.revision() == registry.newest_revision()
    with registry.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
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


def test_the_audit_can_only_grow(address: str, tmp_path: Path):
    site = Site(tmp_path / "state", database_url=address)
    site.create()
    for statement in ("UPDATE audit SET action = 'x'", "DELETE FROM audit"):
        with pytest.raises(DatabaseError, match="append-only"), site.registry.session() as session:
            session.execute(text(statement))
    site.registry.close()
