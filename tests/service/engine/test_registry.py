import multiprocessing
import sqlite3
import stat
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text
from sqlalchemy.exc import DatabaseError, StatementError

from backend.registry.database import Registry
from backend.registry.models import AuditEntry, Base, Port
from tests.support.monitor_page import sql_of_the_page


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    registry.migrate()
    return registry


def test_the_migrations_end_in_the_form_that_the_models_say(registry: Registry):
    with registry.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert registry.revision() == registry.newest_revision()


def test_migrating_again_changes_nothing(registry: Registry):
    with registry.session() as session:
        session.add(Port(port=21000, server_id="a"))
    registry.migrate()
    with registry.reading() as session:
        assert session.get_one(Port, 21000).server_id == "a"


def test_the_file_is_the_accounts_own_from_the_first_moment(registry: Registry):
    assert registry.path is not None
    with registry.session() as session:
        session.add(Port(port=21000, server_id="a"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in registry.path.parent.iterdir()}
    assert len(modes) == 4, "the database with its WAL, shared memory and lock"
    assert set(modes.values()) == {0o600}


def test_an_error_takes_everything_back(registry: Registry):
    def fail() -> None:
        with registry.session() as session:
            session.add(Port(port=21000, server_id="a"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with registry.reading() as session:
        assert session.get(Port, 21000) is None


def test_a_reader_waits_for_no_writer(registry: Registry):
    with registry.session() as writer:
        writer.add(Port(port=21000, server_id="a"))
        writer.flush()
        with registry.reading() as reader:
            assert reader.get(Port, 21000) is None


def test_foreign_keys_are_enforced(registry: Registry):
    with registry.reading() as session:
        assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def _count_up(url: str, times: int) -> None:
    registry = Registry(url)
    for _ in range(times):
        with registry.session() as session:
            port = session.get_one(Port, 1)
            port.server_id = str(int(port.server_id or "0") + 1)


def test_writers_of_several_processes_lose_nothing_and_never_deadlock(registry: Registry):
    with registry.session() as session:
        session.add(Port(port=1, server_id="0"))
    url = str(registry.url)
    workers = [multiprocessing.get_context("spawn").Process(target=_count_up, args=(url, 40)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with registry.reading() as session:
        assert session.get_one(Port, 1).server_id == "120"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # as gunicorn does, whatever threads there are
def test_a_child_of_a_fork_has_its_own_connections(registry: Registry):
    with registry.session() as session:
        session.add(Port(port=1, server_id="0"))
    child = multiprocessing.get_context("fork").Process(target=_count_in, args=(registry,))
    child.start()
    _count_in(registry)
    child.join(60)
    assert child.exitcode == 0
    with registry.reading() as session:
        assert session.get_one(Port, 1).server_id == "100"


def _count_in(registry: Registry) -> None:
    for _ in range(50):
        with registry.session() as session:
            port = session.get_one(Port, 1)
            port.server_id = str(int(port.server_id or "0") + 1)


def test_several_that_migrate_at_once_are_one_after_the_other(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/registry.db"
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            Registry(url).migrate()
        except BaseException as error:  # noqa: BLE001 (shown by the assertion)
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Registry(url).reading() as session:
        assert session.scalar(select(func.count()).select_from(Port)) == 0


def test_times_keep_their_offset_and_one_without_is_refused(registry: Registry):
    tokyo = datetime(2026, 11, 24, 9, tzinfo=timezone(timedelta(hours=9)))
    entry = {"user": "a", "uid": 2**32 - 2, "scheme": "s", "action": "x", "group_name": "g", "env_name": "e"}
    with registry.session() as session:
        session.add(AuditEntry(at=tokyo, **entry))
    with registry.reading() as session:
        row = session.scalars(select(AuditEntry)).one()
        assert (row.at, row.at.tzinfo, row.uid) == (tokyo, UTC, 2**32 - 2)
    with pytest.raises(StatementError), registry.session() as session:
        session.add(AuditEntry(at=datetime(2026, 11, 24), **entry))  # noqa: DTZ001 (that is what is refused)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET user_name = 'x'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit",
        "REPLACE INTO audit SELECT * FROM audit",
        "INSERT INTO audit SELECT * FROM audit WHERE true ON CONFLICT (id) DO UPDATE SET user = 'x'",
    ],
)
def test_the_audit_can_only_grow(registry: Registry, statement: str):
    """Whoever asks the database, with whatever program."""
    with registry.session() as session:
        session.add(AuditEntry(user="alice", uid=1, scheme="cli", action="create", group_name="g", env_name="e"))
    statement = statement.replace("user_name", '"user"')
    with pytest.raises(DatabaseError, match="append-only"), registry.session() as session:
        session.execute(text(statement))
    with registry.reading() as session:
        assert session.scalars(select(AuditEntry.user)).all() == ["alice"]


def test_an_admin_can_shorten_the_audit_as_the_page_says_and_it_only_grows_again(registry: Registry):
    rule = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name")
    entry = {"uid": 1, "scheme": "cli", "action": "create", "group_name": "g", "env_name": "e"}
    with registry.session() as session:
        before = session.execute(rule).all()
        for user, year in (("old", 2025), ("new", 2026)):
            session.add(AuditEntry(user=user, at=datetime(year, 12, 31, 23, 59, tzinfo=UTC), **entry))
    assert registry.path is not None
    with closing(sqlite3.connect(registry.path, isolation_level=None)) as database:
        database.executescript(sql_of_the_page("DROP TRIGGER"))
    with registry.reading() as session:
        assert session.scalars(select(AuditEntry.user)).all() == ["new"]
        assert session.execute(rule).all() == before
