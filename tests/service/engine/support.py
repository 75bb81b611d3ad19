"""A small site for the engine's tests: a real registry, keyring and disk; object store, NSS and runtime are fakes unless given."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlwf.secret import Secret
from sqlalchemy import Column, Table, select

from backend.domain import BoxState, Caller, Group, Observation, Probe, SizeClass, Storage, StorageKey
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories, config_of
from backend.files.snapshots import DatabaseCopies
from backend.reconcile.orphans import Orphans, find_orphans
from backend.reconcile.reconciler import Reconciler
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Base, Operation, Port, Server
from backend.serving.wiring import make_copies
from backend.settings import Settings
from backend.sure_time import SureTime
from backend.wishes.changes import Requests
from backend.wishes.kick import Kick
from backend.wishes.lookup import Ask
from backend.wishes.passwords import Hasher
from backend.wishes.values import CreateWish, StorageWish
from demo.ports import free_range

GROUP = Group(name="ga50000", gid=20001)
ALICE = Caller(user="alice", uid=1001, groups=(GROUP,))
ADMIN = Caller(user="root", uid=0, groups=(), admin=True)
VERSION = "9.9.9"
NEWER = "10.0.0"
SIZE = SizeClass(name="small", memory=1024**3, cpus=1, pids=256, workers=1)
SECRET = "s3-secret-of-the-test"


class FakeStore:
    """Says yes, or raises ``error``, or waits until ``hang`` is set."""

    def __init__(self) -> None:
        self.error: ServiceError | None = None
        self.hang: threading.Event | None = None
        self.hang_bucket: str | None = None
        self.probed: list[tuple[Storage, StorageKey]] = []

    def probe(self, *, storage: Storage, key: StorageKey) -> Probe:
        self.probed.append((storage, key))
        if self.hang is not None and self.hang_bucket in (None, storage.bucket):
            self.hang.wait(60)
        if self.error is not None:
            raise self.error
        return Probe(other_buckets=3)


class FakeDirectory:
    """Groups and members as said; with ``down`` it answers nothing."""

    def __init__(self) -> None:
        self.gids = {GROUP.name: GROUP.gid}
        self.listed: dict[int, list[str]] = {GROUP.gid: ["alice", "bob"]}
        self.unlisted: dict[int, list[str]] = {}
        self.down = False

    def _ask(self) -> None:
        if self.down:
            raise ServiceError("directory_failed", why="it is down")

    def caller(self, *, uid: int) -> Caller:
        self._ask()
        return ALICE

    def group(self, *, name: str) -> Group | None:
        self._ask()
        gid = self.gids.get(name)
        return None if gid is None else Group(name=name, gid=gid)

    def is_member(self, *, user: str, gid: int) -> bool:
        self._ask()
        return user in self.listed.get(gid, []) or user in self.unlisted.get(gid, [])

    def members(self, *, group: Group) -> Sequence[str]:
        self._ask()
        return self.listed.get(group.gid, [])


@dataclass
class FakeBox:
    directory: Path
    state: BoxState = BoxState.AWAKE
    detail: str | None = None
    stranger: bool = False
    rigid: bool = False
    """Takes over no new file."""


@dataclass
class FakeRuntime:
    """Boxes in memory. ``start_error`` and ``stop_error`` are raised; ``hang`` stops starts of that id until it is set."""

    boxes: dict[str, FakeBox] = field(default_factory=dict)
    start_error: Exception | None = None
    stop_error: ServiceError | None = None
    starts: list[str] = field(default_factory=list)
    sizes: dict[str, SizeClass] = field(default_factory=dict)
    hang: threading.Event | None = None
    starting: int = 0
    most_starting: int = 0
    born: BoxState = BoxState.AWAKE
    migrated: list[tuple[str, str]] = field(default_factory=list)
    migrate_error: ServiceError | None = None
    name: str = "fake"
    isolates: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, *, server_id: str, directory: Path, mlflow_version: str, size: SizeClass) -> None:
        if server_id in self.boxes:
            return
        with self._lock:
            self.starting += 1
            self.most_starting = max(self.most_starting, self.starting)
            self.starts.append(server_id)
            self.sizes[server_id] = size
        try:
            if self.hang is not None:
                self.hang.wait(60)
            if self.start_error is not None:
                raise self.start_error
            if mlflow_version not in {VERSION, NEWER}:
                raise ServiceError("version_missing", version=mlflow_version)
            if not (directory / "data" / "mlflow.db").exists():
                make_database(directory / "data" / "mlflow.db")
            self.boxes[server_id] = FakeBox(directory, state=self.born)
        finally:
            with self._lock:
                self.starting -= 1

    def migrate(self, *, server_id: str, directory: Path, mlflow_version: str, timeout: float) -> None:
        assert server_id not in self.boxes, "nothing has the database open"
        if mlflow_version not in {VERSION, NEWER}:
            raise ServiceError("version_missing", version=mlflow_version)
        self.migrated.append((server_id, mlflow_version))
        if self.migrate_error is not None:
            raise self.migrate_error
        migrate_database(directory / "data" / "mlflow.db", mlflow_version)

    def stop(self, *, server_id: str, directory: Path, timeout: float) -> None:
        if self.stop_error is not None and server_id in self.boxes:
            raise self.stop_error
        self.boxes.pop(server_id, None)

    def observe(self, *, server_id: str, directory: Path, address: tuple[str, int]) -> Observation:
        box = self.boxes.get(server_id)
        if box is None:
            return Observation(state=BoxState.ABSENT)
        config = {} if box.rigid else config_of(box.directory)
        return Observation(state=box.state, detail=box.detail, mlflow_version=VERSION, stranger=box.stranger, config=config)

    def kill(self, server_id: str) -> None:
        del self.boxes[server_id]

    def running(self) -> Sequence[str]:
        return sorted(self.boxes)

    def logs(self, *, server_id: str, directory: Path, lines: int) -> str:
        return "the guard runs: the fake's last words"


@dataclass
class FakeTrial:
    """Says yes, or raises ``error``; ``during`` is called while a version is tried on a copy, ``while_proven`` on the server's own."""

    error: ServiceError | None = None
    look_error: ServiceError | None = None
    during: Callable[[], None] | None = None
    while_proven: Callable[[], None] | None = None

    def try_out(self, *, address: tuple[str, int], password: Secret, version: str, folder: str) -> None:
        if self.during is not None:
            self.during()
        if self.error is not None:
            raise self.error

    def look(self, *, address: tuple[str, int], password: Secret, version: str) -> None:
        if self.while_proven is not None:
            self.while_proven()
        if self.look_error is not None:
            raise self.look_error


def migrate_database(path: Path, version: str) -> None:
    """What stands for a migration: the database says which version's it is. Not twice: it would not be the same."""
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database, database:
        database.execute("CREATE TABLE schema (version TEXT)")
        database.execute("INSERT INTO schema VALUES (?)", (version,))


def schema_of(path: Path) -> str | None:
    """The version to which the database was migrated; None: as it was made."""
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema'").fetchone() is None:
            return None
        return str(database.execute("SELECT version FROM schema").fetchone()[0])


def make_database(path: Path, *, runs: Sequence[str] = ()) -> None:
    """A database as a box would make it, WAL and all; one that is there stays as it is but for the runs."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = not path.exists()
    database = sqlite3.connect(path)
    if is_new:
        database.execute("PRAGMA journal_mode=WAL")
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS runs (name TEXT)")
        database.executemany("INSERT INTO runs VALUES (?)", [(run,) for run in runs])
    database.close()


def runs_in(path: Path) -> list[str]:
    database = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    try:
        return [row[0] for row in database.execute("SELECT name FROM runs ORDER BY name")]
    finally:
        database.close()


def rows_of(registry: Registry) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is in it, by table, but for the ticket keys, which no backup brings back."""
    with registry.reading() as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(*_lasting(table)))), key=str)
            for table in Base.metadata.sorted_tables
        }


def _lasting(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if column.name != "ticket_keys"]


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until the condition is true, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.02)
    return found


def asking(caller: Caller = ALICE, env: str = "wine", *, server_id: str | None = None) -> Ask:
    return Ask(caller=caller, group=GROUP.name, env=env, server_id=server_id)


class Site:
    """One installation of the service below ``home``; ``reopen`` gives the same one as a process that starts anew sees it."""

    version = VERSION
    """Of the servers that ``create`` asks for."""
    stand_ins: tuple[str, ...] = (VERSION, NEWER)
    """Versions that only seem to be installed. A folder of real environments gets none: the demo would offer them."""

    def __init__(self, home: Path, *, runtime: Any = None, ports: int = 4, **settings: Any) -> None:
        first = settings["port_first"] if "port_first" in settings else free_range(ports)
        values = {
            "port_first": first,
            "port_last": min(first + ports - 1, 65535),
            "inside_host": "host.example.org",
            "observe_seconds": 0.2,
            "envs_dir": home.parent / "envs",  # not the host's own: its service would offer the stand-ins
        }
        self.settings = Settings(state_dir=home, **{**values, **settings})
        for folder in (home, self.settings.run_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.registry = Registry(self.settings.database_url)
        self.registry.migrate()
        self.keyring = Keyring(self.settings.keys_file)
        self.keyring.create()
        self.kick = Kick(self.settings.kick_socket)
        self.boxes = BoxDirectories(self.settings.servers_dir)
        self.kept = DatabaseCopies(self.settings.kept_dir)
        self.runtime = runtime if runtime is not None else FakeRuntime()
        self.store = FakeStore()
        self.trial = FakeTrial()
        self.directory = FakeDirectory()
        self.requests = Requests(
            registry=self.registry,
            directory=self.directory,
            settings=self.settings,
            keyring=self.keyring,
            kick=self.kick,
            hasher=Hasher(places=4, cost=4),
        )
        for version in self.stand_ins:
            install_version(self.settings.envs_dir, version)

    def reconciler(self, **given: Any) -> Reconciler:
        """One that begins now, with ``given`` in place of the site's own; it takes the clock for right at once."""
        parts = ("registry", "runtime", "boxes", "store", "directory", "keyring", "settings", "kick", "trial")
        own = {**{name: getattr(self, name) for name in parts}, "sure_time": SureTime(seconds=0)}
        return Reconciler(**{**own, **given})

    def create(self, env: str = "wine", bucket: str = "bucket-a", caller: Caller = ALICE) -> Operation:
        key = StorageKey(access_key_id="AKIATEST", secret_access_key=Secret(SECRET))
        wish = CreateWish(
            group=GROUP.name, env_name=env, bucket=bucket, key=key, endpoint_url="http://s3.example.org", mlflow_version=self.version
        )
        return self.requests.create(caller, wish, request_id=None)

    def ask(self, what: str, env: str = "wine", caller: Caller = ALICE) -> Operation:
        asked: Operation = getattr(self.requests, what)(asking(caller, env))
        return asked

    def set_users(self, *names: str, env: str = "wine", password: str | None = None) -> Operation:
        secret = Secret(password or "a password")
        return self.requests.set_users(asking(ALICE, env), [(name, secret) for name in names])

    def set_storage(self, secret: str, *, env: str = "wine") -> Operation:
        wish = StorageWish(key=StorageKey(access_key_id="AKIANEW", secret_access_key=Secret(secret)))
        return self.requests.set_storage(asking(ALICE, env), wish)

    def upgrade(self, env: str = "wine", version: str = NEWER) -> Operation:
        return self.requests.upgrade(asking(ALICE, env), version)

    def server(self, env: str = "wine") -> Server | None:
        with self.registry.reading() as session:
            found = session.scalars(select(Server).where(Server.env_name == env).order_by(Server.created_at.desc())).first()
            session.expunge_all()
            return found

    def one(self, env: str = "wine") -> Server:
        server = self.server(env)
        assert server is not None
        return server

    def operation(self, operation: Operation) -> Operation:
        with self.registry.reading() as session:
            found = session.get_one(Operation, operation.id)
            session.expunge_all()
            return found

    def ports(self) -> dict[int, Port]:
        with self.registry.reading() as session:
            rows = session.scalars(select(Port)).all()
            session.expunge_all()
            return {row.port: row for row in rows}

    def made(self, env: str = "wine") -> Server:
        """A server that runs, made by a reconciler."""
        operation = self.create(env)
        self.reconciler().reconcile_all()
        done = self.operation(operation)
        assert done.state == "succeeded", done.error
        return self.one(env)

    def database(self, server: Server) -> Path:
        return self.boxes.directory(server.id) / "data" / "mlflow.db"

    def settings_of(self, server: Server) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.boxes.directory(server.id) / "config" / "settings.json").read_text())
        return found

    def previous(self) -> list[str]:
        return list(DatabaseCopies(self.settings.previous_dir).ids())

    def kept_previous(self, server: Server) -> Path:
        return DatabaseCopies(self.settings.previous_dir).folder(server.id)

    def replaced(self) -> list[str]:
        return list(DatabaseCopies(self.settings.replaced_dir).ids())

    def orphans(self) -> Orphans:
        return find_orphans(registry=self.registry, runtime=self.runtime, boxes=self.boxes, copies=make_copies(self.settings))

    def assert_nothing_left(self) -> None:
        """No process, no directory, no port, no kept copy, no row."""
        assert list(self.runtime.running()) == []
        assert list(self.boxes.ids()) == []
        assert list(self.kept.ids()) == []
        assert self.ports() == {}
        with self.registry.reading() as session:
            assert session.scalars(select(Server)).all() == []


def install_version(envs: Path, version: str, python: str | None = None) -> Path:
    """What stands for an installed MLflow version. ``python``: the program that stands for its interpreter; one that is there stays."""
    environment = envs / f"mlflow-{version}"
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    (environment / "version.json").write_text(f'{{"mlflow_version": "{version}", "schema_revision": "abc"}}')
    program = environment / "bin" / "python"
    if python is not None or not program.exists():
        program.write_text(python or "#!/bin/false\n")
        program.chmod(0o755)
    return environment
