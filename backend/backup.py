"""Everything of the service in one folder, made while it runs (backend.backup_restore puts it back).

``registry.db`` (an SQLite file, whatever database the registry is in), ``keys.json`` (the keyring: whoever has a backup has the secrets),
``settings.json`` (the settings in force, to read),
``servers/ID/mlflow.db`` of every server, ``kept/ID/…`` of every deleted one that can be restored, ``previous/ID/…`` of every upgraded one
that can be rolled back, ``replaced/ID/…`` of one whose database is being replaced, ``damaged/ID/mlflow.db*`` of one whose database could
not be copied, and ``manifest.json`` with versions, failures, sizes and sha256. What lies in buckets is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from backend.atomic import ensure_space, full_disk_is_ours, make_private, place_file, remove_tree, replace_file, sync_folder
from backend.backup_servers import ServerCopies
from backend.errors import ServiceError
from backend.i18n import _
from backend.manifests import describe_files, write_manifest
from backend.ports import Keeper
from backend.reach import stored_bytes
from backend.registry.database import Registry
from backend.registry.models import Server, now
from backend.settings import Settings
from backend.snapshots import DATABASE, PlainKeeper, copy_database, database_of, files_of

FORMAT: Final = 1
REGISTRY: Final = "registry.db"
KEYS: Final = "keys.json"
_SETTINGS: Final = "settings.json"


def backup(registry: Registry, settings: Settings, directory: Path, keeper: Keeper | None = None) -> dict[str, Any]:
    """Make a backup as ``directory``, which must not exist; it appears when it is complete. Returns its manifest.

    Each database is as it was at one moment. The registry's comes first: what is made, deleted or restored meanwhile is so in the next
    backup, and its database is taken from where it lies now. A database that cannot be copied stops no other: the manifest's ``failures``
    names its server. Errors: ``backup_failed``, ``disk_full``, ``snapshot_failed`` (the registry's).
    """
    if directory.exists():
        raise ServiceError("backup_failed", why=_("{path} exists already", path=directory))
    part = directory.with_name(f".{directory.name}.part")
    try:
        with full_disk_is_ours("making the backup"):
            remove_tree(part)
            make_private(part)
            ensure_space(part, _size(registry.path, settings), why="making the backup")
            manifest = _fill(part, registry, settings, keeper or PlainKeeper())
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
    for server in servers:
        server["database"] = copies.copy(server)
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
