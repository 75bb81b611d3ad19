"""How far an upgrade or a roll back is: read from the registry and the disk, so that one that was cut short knows it, too."""

from __future__ import annotations

from typing import Any, Final

from backend.files.snapshots import database_of, mark_of
from backend.plans.replaced import recover
from backend.plans.world import Work
from backend.registry.models import Server

_TAKEN: Final = "taken"


def has_taken_version(work: Work) -> bool:
    """Whether this operation has come to the point from where nothing is taken back."""
    return work.server().upgraded_by == work.operation_id


def is_swapping(work: Work) -> bool:
    """Whether this operation keeps the database that it replaces."""
    replaced = work.world.replaced
    return replaced.exists(work.server_id) and replaced.about(work.server_id).get("operation_id") == work.operation_id


def note_taken(work: Work) -> None:
    """The copy that this operation keeps knows the database that the version is taken with."""
    work.world.replaced.note(work.server_id, **{_TAKEN: mark_of(database_of(work.box_directory))})


def nobody_wrote(work: Work) -> bool:
    """Whether the database is as the version was taken with it, and what was before it can still come back. The box does not run."""
    copies = work.world.replaced if is_swapping(work) else work.world.previous
    said = copies.about(work.server_id) if copies.exists(work.server_id) else {}
    taken = said.get(_TAKEN) if said.get("operation_id") == work.operation_id else None
    return taken is not None and taken == mark_of(database_of(work.box_directory))


def about(work: Work, server: Server) -> dict[str, Any]:
    """What a copy of the server's database says of itself: whose it is, of which MLflow, and for which operation it was made."""
    return {
        "server_id": server.id,
        "mlflow_version": server.mlflow_version,
        "schema_revision": server.schema_revision,
        "operation_id": work.operation_id,
    }


def recover_earlier(work: Work) -> None:
    """The database that an earlier operation replaced and could not put back is put back."""
    if not is_swapping(work) and not has_taken_version(work):
        recover(work.world, work.server())
