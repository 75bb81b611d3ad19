"""What is on this host and belongs to no server of the registry. Found and said; removed only when somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from backend.ports import BoxFiles, Runtime
from backend.registry.database import Registry
from backend.registry.models import Server
from backend.snapshots import KeptCopies


@dataclass(frozen=True, kw_only=True)
class Orphans:
    """Ids of boxes that run, box directories, and kept copies, of which no row knows."""

    running: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.running or self.directories or self.kept)


def find_orphans(*, registry: Registry, runtime: Runtime, boxes: BoxFiles, kept: KeptCopies) -> Orphans:
    """Look at what is there first and at the rows afterwards: a row is written before its box, and goes after it."""
    running, directories, copies = set(runtime.running()), set(boxes.ids()), set(kept.ids())
    with registry.reading() as session:
        known = set(session.scalars(select(Server.id))) | set(session.scalars(select(Server.trial_id)))
    return Orphans(
        running=tuple(sorted(running - known)), directories=tuple(sorted(directories - known)), kept=tuple(sorted(copies - known))
    )


def remove_orphans(orphans: Orphans, *, runtime: Runtime, boxes: BoxFiles, kept: KeptCopies, timeout: float) -> None:
    """Stop and remove them, databases included. Error: ``box_failed_to_stop``; what was not removed yet is found again."""
    for server_id in orphans.running:
        runtime.stop(server_id=server_id, directory=boxes.directory(server_id), timeout=timeout)
    for server_id in orphans.directories:
        runtime.stop(server_id=server_id, directory=boxes.directory(server_id), timeout=0)
        boxes.remove(server_id)
    for server_id in orphans.kept:
        kept.remove(server_id)
