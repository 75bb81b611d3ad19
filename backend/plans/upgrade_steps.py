"""Steps of an upgrade and of its roll back.

The order is what keeps data and service safe: a *copy* is migrated and tried while the old version serves; then the server stops (requests
under way end, newcomers are refused and their clients try again), so that the copy that is migrated for good misses no write; the new
version must open it behind a port that no user knows; only then the registry says that the server has the new version (``take_version``),
and it starts. Whatever fails puts the old database back and starts the old version. Once it has the new version, that is done only where
nobody has written since: nothing that was answered is ever lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from backend.errors import ServiceError
from backend.plans import box_steps as box
from backend.plans.replaced import recover
from backend.plans.trial_steps import migrate, password, remove_trial, start_aside, take_trial_port, trial_box
from backend.plans.upgrade_state import about, has_taken_version, is_swapping, nobody_wrote, note_taken, recover_earlier
from backend.plans.world import Work
from backend.registry.models import Server


def stop_for_swap(work: Work) -> None:
    """The box does not run."""
    if has_taken_version(work):
        return
    box.stop_box(work)
    recover_earlier(work)


def start_as_before(work: Work) -> None:
    """The server runs as it did before the operation, if it is to run. Not on half a database: that is put back before the next start."""
    if has_taken_version(work):
        return
    put_right(work)
    box.write_box(work)
    box.start_if_wished(work)


def keep_replaced(work: Work) -> None:
    """A proven copy of the database as it is when nobody writes any more."""
    if not is_swapping(work) and not has_taken_version(work):
        work.world.replaced.make(work.server_id, work.box_directory, about(work, work.server()))


def put_right(work: Work) -> None:
    """The database is as it was when the operation began, and its copy is gone."""
    if is_swapping(work) and not has_taken_version(work):
        recover(work.world, work.server())


def migrate_for_good(work: Work) -> None:
    """The database has the new schema; begun anew from the copy after an interruption."""
    if has_taken_version(work):
        return
    replaced = work.world.replaced
    box.stop_box(work)
    if replaced.is_touched(work.server_id):
        replaced.put_back(work.server_id, work.box_directory)
    replaced.note_touched(work.server_id)
    migrate(work, work.server_id)


def place_earlier(work: Work) -> None:
    """The database is the one from before the upgrade."""
    if has_taken_version(work):
        return
    box.stop_box(work)
    touching = partial(work.world.replaced.note_touched, work.server_id)
    work.world.previous.put_back(work.server_id, work.box_directory, touching=touching)


def prove_version(work: Work) -> None:
    """The version opens and reads the server's own database, while no user can reach it."""
    if has_taken_version(work):
        return
    world, target = work.world, work.becoming()
    box.stop_box(work)
    port = take_trial_port(work)
    world.boxes.install(trial_box(work, target, port))
    address = start_aside(work, work.server_id)
    world.trial.look(address=address, password=password(work), version=target.mlflow_version)
    box.stop_box(work)


def stop_proof(work: Work) -> None:
    """What was started for the proof does not run. Before the swap, what runs is the server itself, and it goes on."""
    if is_swapping(work) and not has_taken_version(work):
        box.stop_box(work)


def take_version(work: Work) -> None:
    """The registry says that the server has this version."""
    target, days = work.becoming(), work.world.settings.previous_days
    if not has_taken_version(work):
        note_taken(work)

    def take(_session: Session, server: Server) -> None:
        if has_taken_version(work):
            return
        server.previous_version, server.previous_revision = server.mlflow_version, server.schema_revision
        server.previous_until = work.world.kept_until(days)
        server.mlflow_version, server.schema_revision = target.mlflow_version, target.schema_revision
        server.upgraded_by = work.operation_id

    work.change(take)
    if is_swapping(work):
        work.world.previous.adopt(work.server_id, work.world.replaced)
    remove_trial(work)


def give_back(work: Work) -> None:
    """The server has the version from before again, where nobody wrote since it was taken; its database then comes back as before that."""
    if not has_taken_version(work):
        return
    replaced = work.world.replaced
    box.stop_box(work)
    if not nobody_wrote(work):
        return
    if not is_swapping(work):  # first the copy: cut short here, it is the previous one again as soon as anything is started
        replaced.adopt(work.server_id, work.world.previous)
    before = replaced.about(work.server_id)

    def give(_session: Session, server: Server) -> None:
        server.mlflow_version, server.schema_revision = before["mlflow_version"], before["schema_revision"]
        server.previous_version = server.previous_revision = server.previous_until = server.upgraded_by = None

    work.change(give)


def start_taken(work: Work) -> None:
    """As ``start_if_wished``. Error also: ``version_down``."""
    _named(work, box.start_if_wished)


def wait_taken(work: Work) -> None:
    """As ``wait_if_wished``. Error also: ``version_down``."""
    _named(work, box.wait_if_wished)


def _named(work: Work, step: Callable[[Work], None]) -> None:
    try:
        step(work)
    except ServiceError as error:
        if error.code != "box_failed_to_start":
            raise
        raise ServiceError("version_down", log=error.log, version=work.server().mlflow_version, why=error.params["why"]) from error
