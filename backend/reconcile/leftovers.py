"""What a look clears away where no operation is under way: of a deleted server, of a trial, of an upgrade that is long past."""

from __future__ import annotations

import logging
from typing import Final

from backend.domain import BoxState
from backend.errors import ServiceError
from backend.plans.box_steps import ensure_stopped, observe
from backend.plans.forget import forget_server
from backend.plans.replaced import remove_copies
from backend.plans.trial_steps import forget_trial
from backend.plans.world import World
from backend.registry.models import Server

log = logging.getLogger(__name__)
_UNSEEN: Final = (BoxState.ABSENT, BoxState.SILENT)


def is_box_there(world: World, server: Server) -> bool:
    """Whether a deleted server has a box all the same: a restore failed and could not be taken back."""
    return world.boxes.directory(server.id).exists() or observe(world, server).state not in _UNSEEN


def clear_box(world: World, server: Server) -> None:
    """Nothing of a deleted server runs, and it lies in its copy alone."""
    ensure_stopped(world, server)
    if world.kept.exists(server.id):
        world.boxes.remove(server.id)
    world.backoff.forget(server.id)


def purge(world: World, server: Server) -> None:
    """Nothing is left of a server whose time to be restored is over. Its row goes last: with it go its port and its uids to others."""
    ensure_stopped(world, server)
    world.boxes.remove(server.id)
    if server.trial_id is not None:
        forget_trial(world, server.id, server.trial_id)
    remove_copies(world, server.id)
    with world.registry.session() as session:
        forget_server(session, session.get_one(Server, server.id), rest_until=world.port_rests_until())
    world.backoff.forget(server.id)
    log.info("server %s: the time to restore it is over, it was purged", server.id)


def clear_trial(world: World, server: Server) -> None:
    """Nothing is left of a trial that has ended and could not be taken back; tried again where that cannot be either."""
    if server.trial_id is None:
        return
    world.backoff.tried(server.trial_id)
    try:
        forget_trial(world, server.id, server.trial_id)
    except ServiceError as error:
        log.warning("server %s: what is left of a trial could not be removed: %s", server.id, error)
    else:
        world.backoff.forget(server.trial_id)


def forget_previous(world: World, server: Server) -> None:
    """The database from before an upgrade is gone."""
    world.previous.remove(server.id)
    with world.registry.session() as session:
        row = session.get_one(Server, server.id)
        row.previous_version = row.previous_revision = row.previous_until = None
