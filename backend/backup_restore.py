"""A backup put back on an empty machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.atomic import ensure_space, full_disk_is_ours, make_private
from backend.backup import FORMAT, KEYS, REGISTRY
from backend.backup_servers import DAMAGED, SERVERS
from backend.errors import ServiceError
from backend.i18n import _
from backend.registry.database import Registry
from backend.settings import Settings
from backend.snapshots import check_files, database_of, place_file, read_manifest


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
        place_file(directory / REGISTRY, registry.path)
    registry.migrate()
    registry.close()
    return manifest


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
        if name == KEYS:
            yield name, settings.keys_file
        elif room in copies:
            yield name, copies[room].joinpath(*rest)
        elif room in {SERVERS, DAMAGED}:
            yield name, database_of(settings.servers_dir / rest[0]).with_name(rest[-1])
