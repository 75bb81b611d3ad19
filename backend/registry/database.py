"""The registry's database: one SQLite file by default, another database by address."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Connection, Engine, bindparam, create_engine, event, func, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

import backend.registry.tally  # noqa: F401 (whoever has a registry counts what ends in it)
from backend.atomic import is_full
from backend.errors import ServiceError
from backend.registry.models import AuditEntry, Base

MIGRATIONS: Final = Path(__file__).parent / "migrations"
BUSY_SECONDS: Final = 20
_ROWS: Final = 1000
_READING: Final = "aihub_reading"
_DISK_FULL: Final = "53100"
"""PostgreSQL's word for it."""
# Any number that nobody else locks in this database.
_TURN: Final = 7_207_214_418


class Registry:
    """The database behind an SQLAlchemy address (``sqlite:////path/registry.db``). May be used by several threads and processes at once,
    and by the children of a process that forks.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self.is_sqlite else create_engine(url, pool_pre_ping=True, hide_parameters=True)
        of_one_moment = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}  # which SQLite has by itself
        self._reading = self._engine.execution_options(**{_READING: True}, **of_one_moment)
        _forget_connections_after_fork(self._engine)

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for another database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    def migrate(self) -> None:
        """Bring the tables to the newest form, from nothing or from any older form. Two that migrate at once do it one after the other.
        Errors: ``registry_newer``, ``disk_full``.
        """
        with self._alone(), _full_disk_is_ours():
            self._create_file()
            with self._engine.begin() as connection:
                self._take_turns(connection)
                _refuse_newer(connection)
                command.upgrade(_alembic(connection), "head")

    def revision(self) -> str | None:
        """The form that the tables have now; None before the first migration. Error: ``disk_full``."""
        with _full_disk_is_ours(), self._reading.connect() as connection:
            return _revision(connection)

    def refuse_newer(self) -> None:
        """Errors: ``registry_newer``, where a later version of the service made the form of the tables: no ``migrate`` leads back;
        ``disk_full``.
        """
        with _full_disk_is_ours(), self._reading.connect() as connection:
            _refuse_newer(connection)

    @staticmethod
    def newest_revision() -> str | None:
        """The form that this version of the service needs."""
        return ScriptDirectory(str(MIGRATIONS)).get_current_head()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction that may write: committed at the end, rolled back on an error.

        Waits at most 20 s for another writer; never hold it during slow work. Error: ``disk_full``.
        """
        with _full_disk_is_ours(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            self._take_turns(session.connection())
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads, from one moment's state: waits for no writer and makes none wait.

        What was read may be used afterwards too: the rows are let go of before the end, which would otherwise empty them. Error:
        ``disk_full``, where nobody else has an SQLite file open: what readers share must be made first.
        """
        with _full_disk_is_ours(), Session(self._reading, expire_on_commit=False) as session:
            yield session
            session.expunge_all()

    def has_rows(self) -> bool:
        """Whether anything was ever written into the tables."""
        with self.reading() as session:
            return any(session.execute(select(table).limit(1)).first() is not None for table in Base.metadata.sorted_tables)

    def fill_from(self, other: Registry) -> None:
        """Take over all rows of another registry, as they are at one moment; both have the newest form, and this one has no rows. Error:
        ``disk_full``.
        """
        with _full_disk_is_ours(), other._reading.connect() as old, self._engine.begin() as new:
            self._take_turns(new)
            for table in Base.metadata.sorted_tables:
                for rows in old.execution_options(yield_per=_ROWS).execute(select(table)).mappings().partitions():
                    new.execute(insert(table), [dict(row) for row in rows])
            if not self.is_sqlite:  # which goes on counting from the highest by itself
                last = select(func.max(AuditEntry.id)).scalar_subquery()
                new.execute(select(func.setval(func.pg_get_serial_sequence("audit", "id"), func.coalesce(last, 1))))

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._engine.dispose()

    def _take_turns(self, connection: Connection) -> None:
        """Writers go one after the other, as SQLite has it by itself: what one looked up (a free port, a name) stays so until it ends."""
        if self.url.get_backend_name() == "postgresql":
            connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{BUSY_SECONDS}s"})
            connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """SQLite waits for no other while a new file turns to WAL: it says "locked" at once. Hence a lock of our own, beside the file."""
        if self.path is None:
            yield
            return
        lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _create_file(self) -> None:
        """Made by us rather than by SQLite, so that it is 0600 from its first moment; SQLite gives its WAL the same mode."""
        if self.path is not None:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def among(column: InstrumentedAttribute[Any], ids: Collection[str]) -> ColumnElement[bool]:
    """As a question's condition: one of those ids of ours, however many they are. They stand in its text, since an SQLite from before 3.32,
    as of RHEL 8, takes no more than 999 values beside it.
    """
    return column.in_(bindparam(None, list(ids), expanding=True, literal_execute=True))


@contextmanager
def _full_disk_is_ours() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if is_full(error.orig) or getattr(error.orig, "sqlstate", None) == _DISK_FULL:
            raise ServiceError("disk_full", why="writing to the registry") from error
        raise


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection) -> None:
    now, known = _revision(connection), ScriptDirectory(str(MIGRATIONS))
    if now is not None and now not in {script.revision for script in known.walk_revisions()}:
        raise ServiceError("registry_newer", now=now, needed=known.get_current_head())


def _sqlite_engine(url: str) -> Engine:
    """SQLite as several processes need it. The driver's own idea of transactions is off: it would begin a writer as a reader, and a
    reader that turns writer fails at once when another wrote meanwhile.
    """
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _forget_connections_after_fork(engine: Engine) -> None:
    """A connection must not be used on both sides of a fork: the child leaves the parent's alone and opens its own."""
    reference = weakref.ref(engine)

    def forget() -> None:
        engine = reference()
        if engine is not None:
            engine.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
