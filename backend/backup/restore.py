"""A backup put back on an empty machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import update

from backend.atomic import ensure_space, full_disk_is_ours, make_private, place_file, remove_tree
from backend.backup.make import FORMAT, KEYS, REGISTRY, registry_at
from backend.backup.servers import DAMAGED, SERVERS
from backend.errors import ServiceError
from backend.files.manifests import check_files, read_manifest
from backend.files.snapshots import DATABASE, database_of, remove_sides, replace_database
from backend.i18n import _
from backend.registry.database import Registry
from backend.registry.models import Server
from backend.settings import Settings


def restore_backup(directory: Path, settings: Settings) -> dict[str, Any]:
    """Put a backup back into ``settings.state_dir``, where no registry may be yet. The service then starts the servers by itself.

    The registry may be in another kind of database than it was in, one without a row. It comes last: a restore that was cut short is not
    taken for one, and can be asked for again. Errors: ``backup_damaged``, ``state_not_empty``, ``disk_full``, ``backup_failed``.
    """
    state = settings.state_dir
    with closing(Registry(settings.database_url)) as registry:
        _check_empty(settings, registry)
        manifest = _checked(directory)
        with full_disk_is_ours("putting the backup back"), _alone(state):
            _check_empty(settings, registry)  # once more: another one may have been at it
            ensure_space(state, sum(facts["size"] for facts in manifest["files"].values()), why="putting the backup back")
            places = list(_places(manifest, settings))
            for _source, target in places:
                make_private(target.parent)
                if target.name == DATABASE:  # a restore of another backup, cut short, may have put some there
                    remove_sides(target)
            for source, target in places:
                place_file(directory / source, target)
            _place_registry(directory / REGISTRY, registry, state)
    return manifest


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Two who put a backup back at once do it one after the other: the second finds a registry, whose service may be started by then."""
    make_private(state)
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _check_empty(settings: Settings, registry: Registry) -> None:
    """Neither a registry nor a box that a service has written to: a box may run."""
    box = next(settings.servers_dir.glob("*/config"), None)
    if box is not None:
        raise ServiceError("state_not_empty", path=box)
    if registry.path is not None:
        if registry.path.exists():
            raise ServiceError("state_not_empty", path=registry.path)
    elif registry.revision() is not None and (registry.revision() != registry.newest_revision() or registry.has_rows()):
        raise ServiceError("state_not_empty", path=registry.url.render_as_string(hide_password=True))


def _place_registry(source: Path, registry: Registry, state: Path) -> None:
    """All that is to be changed in it is changed beside it, so that it is there when nothing is left to do."""
    part = state / ".registry"
    try:
        remove_tree(part)  # what a restore that was killed left beside the file would be played into this one
        make_private(part)
        place_file(source, part / REGISTRY)
        with registry_at(part / REGISTRY) as copy:  # of an older version, perhaps
            copy.migrate()
            _forget_ticket_keys(copy)
            if registry.path is None:
                registry.migrate()
                registry.fill_from(copy)
        if registry.path is not None:
            make_private(registry.path.parent)
            replace_database(part / REGISTRY, registry.path)  # which is not there; what its last one left beside it may be
    finally:
        remove_tree(part)


def _forget_ticket_keys(registry: Registry) -> None:
    """Which sessions were signed out is in no backup: all have ended. The reconciler makes new keys at its first look."""
    with registry.session() as session:
        session.execute(update(Server).values(ticket_keys=None, updated_at=Server.updated_at))


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
