"""Steps of an upgrade and of its roll back.

The order is what keeps data and service safe: a *copy* is migrated and tried while the old version serves; then the server stops (requests
under way end, newcomers are refused and their clients try again), so that the copy that is migrated for good misses no write; the new
version must open it behind a port that no user knows; only then the registry says that the server has the new version (``take_version``,
from where nothing is taken back, since users may write again), and it starts. Whatever fails before puts the old database back and starts
the old version.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy.orm import Session

from backend.plans import box_steps as box
from backend.plans.replaced import recover
from backend.plans.trial_steps import migrate, password, remove_trial, start_aside, take_trial_port, trial_box
from backend.plans.upgrade_state import about, has_taken_version, is_swapping, recover_earlier
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
    """The registry says that the server has this version; from here nothing is taken back."""
    target, days = work.becoming(), work.world.settings.previous_days

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
