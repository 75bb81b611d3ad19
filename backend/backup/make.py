"""Everything of the service in one folder, made while it runs (backend.backup.restore puts it back).

``registry.db`` (an SQLite file, whatever database the registry is in), ``keys.json`` (the keyring: whoever has a backup has the secrets),
``settings.json`` (the settings in force, to read),
``servers/ID/mlflow.db`` of every server, ``kept/ID/…`` of every deleted one that can be restored, ``previous/ID/…`` of every upgraded one
that can be rolled back, ``replaced/ID/…`` of one whose database is being replaced, ``damaged/ID/mlflow.db*`` of one whose database could
not be copied, and ``manifest.json`` with versions, failures, sizes and sha256. What lies in buckets is not in it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select, update

from backend.atomic import ensure_space, full_disk_is_ours, make_private, place_file, remove_tree, replace_file, sync_folder
from backend.backup.servers import ServerCopies
from backend.domain import Desired
from backend.errors import ServiceError
from backend.files.manifests import describe_files, write_manifest
from backend.files.snapshots import DATABASE, PlainKeeper, copy_database, database_of, files_of
from backend.files.untrusted_files import stored_bytes
from backend.i18n import _
from backend.ports import Keeper
from backend.registry.database import Registry
from backend.registry.models import Server, now
from backend.settings import Settings

FORMAT: Final = 1
REGISTRY: Final = "registry.db"
KEYS: Final = "keys.json"
_SETTINGS: Final = "settings.json"
_VERSIONS: Final = (
    Server.mlflow_version,
    Server.schema_revision,
    Server.previous_version,
    Server.previous_revision,
    Server.previous_until,
    Server.upgraded_by,
)
"""What the registry says of a server's databases."""


def backup(registry: Registry, settings: Settings, directory: Path, keeper: Keeper | None = None) -> dict[str, Any]:
    """Make a backup as ``directory``, which must not exist; it appears when it is complete. Returns its manifest.

    Each database is as it was at one moment. The registry's comes first: what is made, deleted or restored meanwhile is so in the next
    backup, and its database is taken from where it lies now; only the version is that of the database. A database that cannot be copied
    stops no other: the manifest's ``failures`` names its server. One backup is made at a time. Errors: ``backup_failed``, ``disk_full``,
    ``snapshot_failed`` (the registry's).
    """
    part = directory.with_name(f".{directory.name}.part")
    with _alone(settings):
        if directory.exists():
            raise ServiceError("backup_failed", why=_("{path} exists already", path=directory))
        return _make(part, directory, registry, settings, keeper or PlainKeeper())


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """A second one of that name would empty the folder of the first. The lock is on a folder of the state, and goes with the process."""
    folder = os.open(settings.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError("backup_failed", why=_("another backup is being made; wait until it is done")) from None
        yield
    finally:
        os.close(folder)


def _make(part: Path, directory: Path, registry: Registry, settings: Settings, keeper: Keeper) -> dict[str, Any]:
    try:
        with full_disk_is_ours("making the backup"):
            remove_tree(part)
            make_private(part)
            ensure_space(part, _size(registry.path, settings), why="making the backup")
            manifest = _fill(part, registry, settings, keeper)
            part.rename(directory)
            sync_folder(directory.parent)
    except OSError as error:
        why = error.strerror or _("a file could not be copied")
        raise ServiceError("backup_failed", why=f"{why} ({error.filename})") from error
    finally:
        remove_tree(part)
    return manifest


def _fill(part: Path, registry: Registry, settings: Settings, keeper: Keeper) -> dict[str, Any]:
    _copy_registry(registry, part / REGISTRY)
    servers = _servers(part / REGISTRY)
    copies = ServerCopies(part, settings, keeper)
    with registry_at(part / REGISTRY) as copy:
        for server in servers:
            _copy_server(server, copies, registry, copy)
    place_file(settings.keys_file, part / KEYS)
    replace_file(part / _SETTINGS, json.dumps(asdict(settings), indent=2, default=str).encode())
    names = sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "made_at": now().isoformat(),
        "aihub_version": version("aihub"),
        "registry_revision": registry.revision(),
        "servers": servers,
        "failures": copies.failures,
        "files": describe_files(part, names),
    }
    write_manifest(part, manifest)
    return manifest


def _copy_server(server: dict[str, Any], copies: ServerCopies, registry: Registry, copy: Registry) -> None:
    """Its databases, anew where it got another version meanwhile; then the registry's copy names the version whose database they are."""
    while True:
        server["database"] = copies.copy(server)
        now_so = _versions(registry, server["id"])
        if now_so is None or now_so == _versions(copy, server["id"]):
            break
        copies.forget(server["id"])
        with copy.session() as session:
            session.execute(update(Server).where(Server.id == server["id"]).values(**now_so, updated_at=Server.updated_at))
        server.update({name: now_so[name] for name in ("mlflow_version", "schema_revision")})
    if now_so is not None and not server["database"] and _has_one(copy, server["id"]):
        copies.miss(server)


def _has_one(copy: Registry, server_id: str) -> bool:
    """Whether it should have a database: one that was ever up, and is not gone."""
    with copy.reading() as session:
        row = session.get_one(Server, server_id)
        return row.observed_at is not None and row.deleted_at is None and row.desired != Desired.ABSENT


def _versions(registry: Registry, server_id: str) -> dict[str, Any] | None:
    with registry.reading() as session:
        row = session.execute(select(*_VERSIONS).where(Server.id == server_id)).mappings().one_or_none()
    return None if row is None else {str(name): value for name, value in row.items()}


def _copy_registry(registry: Registry, target: Path) -> None:
    """An SQLite file, whatever database the registry is in."""
    if registry.path is not None:
        copy_database(registry.path, target)
        return
    now, needed = registry.revision(), registry.newest_revision()
    if now != needed:
        why = _("the registry has revision {now}, and this version needs {needed}; run `aihub init`", now=now, needed=needed)
        raise ServiceError("backup_failed", why=why)
    with registry_at(target) as copy:
        copy.migrate()
        copy.fill_from(registry)


@contextmanager
def registry_at(path: Path) -> Iterator[Registry]:
    """The registry in a file that is nobody's but ours; that file alone is left at the end."""
    registry = Registry(f"sqlite:///{path}")
    try:
        yield registry
    finally:
        registry.close()
        Path(f"{path}.lock").unlink(missing_ok=True)


def _servers(copy: Path) -> list[dict[str, Any]]:
    """Who is in the copied registry, not in the one that goes on."""
    with registry_at(copy) as registry, registry.session() as session:
        rows = session.scalars(select(Server).order_by(Server.id)).all()
        return [
            {
                "id": row.id,
                "group": row.group_name,
                "env_name": row.env_name,
                "deleted": row.deleted_at is not None,
                "mlflow_version": row.mlflow_version,
                "schema_revision": row.schema_revision,
            }
            for row in rows
        ]


def _size(registry: Path | None, settings: Settings) -> int:
    """What is stored of all databases. Nothing that only lies beside one, or says that it is large, is in the way of the others' backup."""
    copies = (path for folder in settings.copies_dirs for path in folder.glob(f"*/{DATABASE}"))
    databases = (path for directory in settings.servers_dir.glob("*") for path in files_of(database_of(directory)))
    own = () if registry is None else (registry.resolve(),)
    return sum(map(stored_bytes, (*own, *databases, *copies)))
