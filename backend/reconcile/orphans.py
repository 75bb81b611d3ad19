"""What is on this host and belongs to no server of the registry. Found and said; removed only when somebody asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from backend.files.snapshots import DatabaseCopies
from backend.i18n import _
from backend.ports import BoxFiles, Runtime
from backend.registry.database import Registry
from backend.registry.models import Server
from backend.wishes import portpool


@dataclass(frozen=True, kw_only=True)
class Orphans:
    """Ids of boxes that run, of box directories, and of copies of databases, of which no row knows. Each kind of copy is named as its
    folder in the state is.
    """

    running: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Of deleted servers."""
    previous: tuple[str, ...] = ()
    """From before an upgrade."""
    replaced: tuple[str, ...] = ()
    """What an operation replaced."""

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def ids(self) -> list[str]:
        """Each once, whatever is left of it."""
        return sorted({server_id for found in vars(self).values() for server_id in found})

    def __str__(self) -> str:
        words = {"running": _("running"), "directories": _("directories")}
        return ", ".join(f"{words.get(what, what)} {' '.join(ids)}" for what, ids in vars(self).items() if ids)


def find_orphans(*, registry: Registry, runtime: Runtime, boxes: BoxFiles, copies: Mapping[str, DatabaseCopies]) -> Orphans:
    """Look at what is there first and at the rows afterwards: a row is written before its box, and goes after it."""
    there = {"running": runtime.running(), "directories": boxes.ids(), **{name: each.ids() for name, each in copies.items()}}
    with registry.reading() as session:
        known = set(session.scalars(select(Server.id))) | set(session.scalars(select(Server.trial_id)))
    return Orphans(**{name: tuple(sorted(set(ids) - known)) for name, ids in there.items()})


def remove_orphans(
    orphans: Orphans, *, registry: Registry, runtime: Runtime, boxes: BoxFiles, copies: Mapping[str, DatabaseCopies], timeout: float
) -> None:
    """Stop and remove them, databases included, and give back the ports of trials. Error: ``box_failed_to_stop``; what was not removed yet
    is found again.
    """
    for server_id in orphans.running:
        runtime.stop(server_id=server_id, directory=boxes.directory(server_id), timeout=timeout)
    for server_id in orphans.directories:
        runtime.stop(server_id=server_id, directory=boxes.directory(server_id), timeout=0)
        boxes.remove(server_id)
    for name, each in copies.items():
        for server_id in getattr(orphans, name):
            each.remove(server_id)
    with registry.session() as session:
        for server_id in orphans.ids():
            portpool.release_all(session, server_id)
