"""Everything of the service in one folder, made while it runs; and put back on an empty machine.

``registry.db``, ``keys.json`` (the keyring: whoever has a backup has the secrets), ``settings.json`` (the settings in force, to read),
``servers/ID/mlflow.db`` of every server, ``kept/ID/…`` of every deleted one that can be restored, ``previous/ID/…`` of every upgraded one
that can be rolled back, ``replaced/ID/…`` of one whose database is being replaced, and ``manifest.json`` with versions, sizes and sha256.
What lies in buckets is not in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from backend.atomic import ensure_space, full_disk_is_ours, make_private, remove_tree, replace_file, sync_folder
from backend.errors import ServiceError
from backend.i18n import _
from backend.ports import Keeper
from backend.registry.database import Registry
from backend.registry.models import Server, now
from backend.settings import Settings
from backend.snapshots import (
    DATABASE,
    MANIFEST,
    KeptCopies,
    PlainKeeper,
    check_files,
    copy_database,
    database_of,
    describe_files,
    place_file,
    read_manifest,
)

FORMAT: Final = 1
_REGISTRY: Final = "registry.db"
_KEYS: Final = "keys.json"
_SETTINGS: Final = "settings.json"


def backup(registry: Registry, settings: Settings, directory: Path, keeper: Keeper | None = None) -> dict[str, Any]:
    """Make a backup as ``directory``, which must not exist; it appears when it is complete. Returns its manifest.

    Each database is as it was at one moment. The registry's comes first: what is made, deleted or restored meanwhile is so in the next
    backup, and its database is taken from where it lies now. Errors: ``backup_failed``, ``disk_full``, ``snapshot_failed``.
    """
    if directory.exists():
        raise ServiceError("backup_failed", why=_("{path} exists already", path=directory))
    if registry.path is None:
        raise ServiceError("backup_failed", why=_("the registry is not an SQLite file: back it up with that database's own tools"))
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


def restore_backup(directory: Path, settings: Settings) -> dict[str, Any]:
    """Put a backup back into ``settings.state_dir``, where no registry may be yet. The service then starts the servers by itself.

    The registry comes last: a restore that was cut short is not taken for one, and can be asked for again.
    Errors: ``backup_damaged``, ``state_not_empty``, ``disk_full``, ``backup_failed``.
    """
    state, registry = settings.state_dir, Registry(settings.database_url)
    if registry.path is None:
        raise ServiceError("backup_failed", why=_("the registry of these settings is not an SQLite file"))
    if registry.path.exists():
        raise ServiceError("state_not_empty", path=registry.path)
    manifest = _checked(directory)
    with full_disk_is_ours("putting the backup back"):
        make_private(state)
        ensure_space(state, sum(facts["size"] for facts in manifest["files"].values()), why="putting the backup back")
        for source, target in _places(manifest, settings):
            make_private(target.parent)
            place_file(directory / source, target)
        make_private(registry.path.parent)
        place_file(directory / _REGISTRY, registry.path)
    registry.migrate()
    registry.close()
    return manifest


def _fill(part: Path, registry: Registry, settings: Settings, keeper: Keeper) -> dict[str, Any]:
    if registry.path is not None:
        copy_database(registry.path, part / _REGISTRY)
    servers = _servers(part / _REGISTRY)
    for server in servers:
        server["database"] = _copy_server(part, settings, server, keeper)
    place_file(settings.keys_file, part / _KEYS)
    replace_file(part / _SETTINGS, json.dumps(asdict(settings), indent=2, default=str).encode())
    names = sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "made_at": now().isoformat(),
        "aihub_version": version("aihub"),
        "registry_revision": registry.revision(),
        "servers": servers,
        "files": describe_files(part, names),
    }
    replace_file(part / MANIFEST, json.dumps(manifest, indent=2).encode())
    return manifest


def _servers(copy: Path) -> list[dict[str, Any]]:
    """Who is in the copied registry, not in the one that goes on."""
    registry = Registry(f"sqlite:///{copy}")
    try:
        with registry.session() as session:
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
    finally:
        registry.close()


def _copy_server(part: Path, settings: Settings, server: dict[str, Any], keeper: Keeper) -> bool:
    """Copy the server's database, or what is kept of it, and what may take its place again. False where it has none (yet).

    A delete or a restore may move it since the registry was copied: what the registry's copy says decides where it lies in the backup.
    """
    server_id = str(server["id"])
    kept, directory = settings.kept_dir / server_id, settings.servers_dir / server_id
    for folder in (settings.previous_dir, settings.replaced_dir):
        _copy_copy(part, folder / server_id)
    for _look in range(2):  # it may have moved between the looks at its two places
        if server["deleted"]:
            place, found = "kept", _copy_copy(part, kept) or _keep_copy(part, directory, server, keeper)
        else:
            place, found = "servers", _copy_database(part, directory, keeper) or _place_kept(part, kept)
        if found:
            break
    return (part / place / server_id / DATABASE).exists()


def _copy_database(part: Path, directory: Path, keeper: Keeper) -> bool:
    target = part / "servers" / directory.name / DATABASE
    make_private(target.parent)
    try:
        keeper.copy_database(directory, target)
    except (FileNotFoundError, ServiceError):
        if database_of(directory).exists():
            raise
        return False
    return True


def _place_kept(part: Path, kept: Path) -> bool:
    """Deleted since the registry was copied: it is a server of the backup like any other."""
    try:
        place_file(kept / DATABASE, part / "servers" / kept.name / DATABASE)
    except FileNotFoundError:
        if (kept / DATABASE).exists():
            raise
        return False
    return True


def _keep_copy(part: Path, directory: Path, server: dict[str, Any], keeper: Keeper) -> bool:
    """Restored since the registry was copied: it is a deleted server of the backup like any other."""
    about = {"server_id": server["id"], "mlflow_version": server["mlflow_version"], "schema_revision": server["schema_revision"]}
    copies = KeptCopies(part / "kept", keeper)
    try:
        copies.make(server["id"], directory, about)
    except (FileNotFoundError, ServiceError):
        if database_of(directory).exists():
            raise
    return copies.exists(server["id"])


def _copy_copy(part: Path, copy: Path) -> bool:
    """A kept copy, into the folder of its kind. False where there is none."""
    if not copy.exists():
        return False
    target = part / copy.parent.name / copy.name
    make_private(target.parent)
    try:
        shutil.copytree(copy, target)
    except (FileNotFoundError, shutil.Error):
        if (copy / MANIFEST).exists():
            raise
        remove_tree(target)  # it went since the registry was copied
        return False
    return True


def _checked(directory: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(directory)
        _check_form(manifest)
        check_files(directory, manifest)
    except ServiceError as error:
        raise ServiceError("backup_damaged", path=directory, why=error.params["why"]) from error
    return manifest


def _check_form(manifest: dict[str, Any]) -> None:
    if manifest.get("format") != FORMAT:
        why = _("its format is {format}, and this version reads {known}", format=manifest.get("format"), known=FORMAT)
        raise ServiceError("snapshot_damaged", why=why)
    if any(".." in Path(name).parts or Path(name).is_absolute() for name in manifest["files"]):
        raise ServiceError("snapshot_damaged", why=_("its manifest names files outside of it"))


def _places(manifest: dict[str, Any], settings: Settings) -> Iterator[tuple[str, Path]]:
    """Where each file of a backup belongs, but for the registry."""
    copies = {folder.name: folder for folder in settings.copies_dirs}
    for name in manifest["files"]:
        room, *rest = Path(name).parts
        if name == _KEYS:
            yield name, settings.keys_file
        elif room in copies:
            yield name, copies[room].joinpath(*rest)
        elif room == "servers":
            yield name, database_of(settings.servers_dir / rest[0])


def _size(registry: Path, settings: Settings) -> int:
    copies = (path for folder in settings.copies_dirs for path in folder.glob(f"*/{DATABASE}"))
    databases = (*settings.servers_dir.glob(f"*/data/{DATABASE}*"), *copies)
    return sum(path.stat().st_size for path in (registry, *databases) if path.exists())
