"""The plan of each kind of operation: its steps with their undo beside them, and what the registry says at its end.

A plan is run again from its first step when it was cut short, and every undo is run when one step fails: so each step makes sure of
something (done already is fine), and each undo makes sure of its absence.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.domain import BoxState, Desired, OperationKind, Status
from backend.errors import ServiceError
from backend.i18n import stored
from backend.networks import egress, layout
from backend.plans import box_steps as box
from backend.plans import resize_steps as resize
from backend.plans import trial_steps as trial
from backend.plans import upgrade_steps as upgrade
from backend.plans.forget import forget_server, was_never_made
from backend.plans.replaced import recover, remove_copies
from backend.plans.shape import Plan, Step
from backend.plans.world import Work
from backend.registry.models import Server, now
from backend.wishes import membership, tickets

log = logging.getLogger(__name__)


def reason_of(error: ServiceError) -> dict[str, Any]:
    """An error as the registry holds it."""
    return {"code": error.code, "params": {name: stored(value) for name, value in error.params.items()}, "log": error.log}


def check_storage(work: Work) -> None:
    """The key opens the bucket, at a store that the server reaches as the service does."""
    storage, key = work.new_storage(work.server())
    egress.check_endpoint(work.world.settings, storage.endpoint_url, layout.look_up)
    probe = work.world.store.probe(storage=storage, key=key)

    def note(_session: Session, server: Server) -> None:
        server.other_buckets = probe.other_buckets

    if "access_key_id" in work.payload:
        work.notes["other_buckets"] = probe.other_buckets
    else:
        work.change(note)


def snapshot(work: Work) -> None:
    """A proven copy of the database is kept; where an admin asked for that, its files as they are when no such copy can be made."""
    server = work.server()
    with work.world.registry.reading() as session:
        if was_never_made(session, server):  # what its failed create left has nothing to be kept
            return
    about = {"server_id": server.id, "mlflow_version": server.mlflow_version, "schema_revision": server.schema_revision}
    work.world.kept.make(server.id, work.box_directory, about, damaged=work.payload["damaged"])


def drop_snapshot(work: Work) -> None:
    """Nothing is kept of a server that is still there."""
    if work.box_directory.exists():
        work.world.kept.remove(work.server_id)


def unpack_snapshot(work: Work) -> None:
    """The box has the database that was kept."""
    work.world.kept.unpack(work.server_id, work.box_directory)


def drop_unpacked(work: Work) -> None:
    """Nothing of the box is there, but only while the copy that it came from is. A folder is not taken from under a box that runs."""
    box.stop_box(work)
    if work.world.kept.exists(work.server_id):
        box.remove_box(work)


def remove_copy(work: Work) -> None:
    """Nothing is kept of the server."""
    remove_copies(work.world, work.server_id)


def take_name(work: Work) -> None:
    """The server has its name again, and a new ticket key: which sessions were signed out went with its box. Error: ``server_exists``."""

    def take(session: Session, server: Server) -> None:
        same = select(Server.id).where(
            Server.group_name == server.group_name, Server.env_name == server.env_name, Server.deleted_at.is_(None), Server.id != server.id
        )
        if session.scalars(same).first() is not None:
            raise ServiceError("server_exists", group=server.group_name, env_name=server.env_name)
        server.deleted_at, server.status, server.desired = None, Status.CREATING, Desired.RUNNING
        server.ticket_keys = work.world.keyring.encrypt(tickets.new_keys())

    work.change(take)


def stop_for_delete(work: Work) -> None:
    """The box does not run, and its database is the whole one, unless an admin asked for it as it is and nothing better can be had."""
    box.stop_box(work)
    try:
        recover(work.world, work.server())
    except ServiceError as error:
        if error.code != "snapshot_damaged" or not work.payload["damaged"]:
            raise
        log.warning("server %s is deleted with half a database: %s", work.server_id, error)


def _is_up(work: Work, _session: Session, server: Server) -> None:
    server.status = Status.SLEEPING if work.notes["state"] is BoxState.ASLEEP else Status.RUNNING
    server.reason, server.observed_at, server.restorable_until = None, now(), None


def _is_down(_work: Work, _session: Session, server: Server) -> None:
    server.status, server.reason, server.observed_at = Status.STOPPED, None, now()


def _is_deleted(work: Work, session: Session, server: Server) -> None:
    if was_never_made(session, server):
        forget_server(session, server, rest_until=None)
        return
    server.deleted_at = work.world.sure_time.not_before()
    server.restorable_until = server.deleted_at + timedelta(days=work.world.settings.restore_days)
    server.status, server.reason, server.desired = Status.DELETED, None, Desired.ABSENT


def _is_gone(work: Work, session: Session, server: Server) -> None:
    forget_server(session, server, rest_until=work.world.port_rests_until())


def _has_storage(work: Work, _session: Session, server: Server) -> None:
    storage, key = work.new_storage(server)
    server.endpoint_url, server.region = storage.endpoint_url, storage.region
    server.access_key_id, server.secret_access_key = key.access_key_id, work.world.keyring.encrypt(key.secret_access_key)
    server.other_buckets = work.notes["other_buckets"]


def _has_users(work: Work, _session: Session, server: Server) -> None:
    server.users = [{"name": row["name"], "bcrypt": row["bcrypt"]} for row in work.payload["users"]]
    server.users_updated_at = now()
    before = server.known_to if work.payload.get("still_known") else []  # one of the passwords is what it was
    server.known_to = sorted({*before, *work.notes["members"], str(work.payload.get("by") or work.requested_by)}) if server.users else []
    server.former_members = server.former_members if before else []


def _has_version(work: Work, session: Session, server: Server) -> None:
    """It is as it was before, but for the version."""
    if server.desired == Desired.RUNNING:
        _is_up(work, session, server)
    else:
        _is_down(work, session, server)


def _has_size(work: Work, session: Session, server: Server) -> None:
    server.size = work.payload["becomes"]["size"]
    _has_version(work, session, server)


def _is_ill(_work: Work, _session: Session, server: Server, error: ServiceError) -> None:
    server.status, server.reason = Status.FAILED, reason_of(error)


def _was_not_made(work: Work, session: Session, server: Server, error: ServiceError) -> None:
    """Its row goes last: as long as anything is left of it, the row says whose that is, and the reconciler goes on removing."""
    server.desired = Desired.ABSENT
    if work.notes["undone"]:
        forget_server(session, server, rest_until=None)
    else:
        _is_ill(work, session, server, error)


def _is_not_deleted(work: Work, session: Session, server: Server, error: ServiceError) -> None:
    if work.box_directory.exists():
        server.desired = work.payload["before"]
    _is_ill(work, session, server, error)


def _is_not_restored(work: Work, _session: Session, server: Server, _error: ServiceError) -> None:
    if server.deleted_at is None and server.restorable_until is not None:
        server.deleted_at = datetime.fromisoformat(work.payload.get("deleted_at", now().isoformat()))  # an older service noted none
    server.status, server.desired, server.reason = Status.DELETED, Desired.ABSENT, None


def _stays(_work: Work, _session: Session, _server: Server, _error: ServiceError) -> None:
    """What was in force is in force."""


def look_up_members(work: Work) -> None:
    """Who may know the new password, looked up before it is in force. Error: ``directory_failed``."""
    work.notes["members"] = list(membership.members_now(work.world.directory, work.server()))


def write_users(work: Work) -> None:
    """The box has the new users."""
    look_up_members(work)
    box.write_new_users(work)


_UP: Final = (Step("start_box", box.start_box, starts=True), Step("wait_ready", box.wait_ready))

_PROVE: Final = Step("prove_version", upgrade.prove_version, upgrade.stop_proof, starts=True)
_START_TAKEN: Final = (
    Step("write_box", box.write_box),
    Step("start_box", upgrade.start_taken),
    Step("wait_ready", upgrade.wait_taken),
)

PLANS: Final[dict[OperationKind, Plan]] = {
    OperationKind.CREATE: Plan(
        steps=(
            Step("check_storage", check_storage),
            Step("write_box", box.write_box, box.remove_box),
            Step("start_box", box.start_new_box, box.stop_box, starts=True),
            Step("wait_ready", box.wait_new_ready),
        ),
        succeed=_is_up,
        fail=_was_not_made,
    ),
    OperationKind.START: Plan(steps=(Step("write_box", box.write_box), *_UP), succeed=_is_up, fail=_is_ill),
    OperationKind.STOP: Plan(steps=(Step("stop_box", box.stop_box),), succeed=_is_down, fail=_is_ill),
    OperationKind.DELETE: Plan(
        steps=(Step("stop_box", stop_for_delete), Step("snapshot", snapshot, drop_snapshot), Step("remove_box", box.remove_box)),
        succeed=_is_deleted,
        fail=_is_not_deleted,
    ),
    OperationKind.RESTORE: Plan(
        steps=(
            Step("check_name", take_name),
            Step("unpack_snapshot", unpack_snapshot, drop_unpacked),
            Step("write_box", box.write_box),
            Step("start_box", box.start_box, box.stop_box, starts=True),
            # The copy stays until the registry says that the server is back; the reconciler's next look removes it.
            Step("wait_ready", box.wait_ready),
        ),
        succeed=_is_up,
        fail=_is_not_restored,
    ),
    OperationKind.PURGE: Plan(
        steps=(Step("stop_box", box.stop_box), Step("remove_box", trial.remove_boxes), Step("remove_copy", remove_copy)),
        succeed=_is_gone,
        fail=_stays,
    ),
    OperationKind.USERS: Plan(steps=(Step("write_box", write_users), Step("wait_users", box.wait_users)), succeed=_has_users, fail=_stays),
    OperationKind.STORAGE: Plan(
        steps=(
            Step("check_storage", check_storage),
            Step("write_box", box.write_new_storage, box.write_box),
            Step("wait_ready", box.wait_restarted),
        ),
        succeed=_has_storage,
        fail=_stays,
    ),
    OperationKind.RESIZE: Plan(
        steps=(
            Step("stop_box", box.stop_box, resize.restart_as_before),
            Step("write_box", resize.write_new_size),
            Step("start_box", resize.start_resized, box.stop_box, starts=True),
            Step("wait_ready", box.wait_if_wished),
        ),
        succeed=_has_size,
        fail=_stays,
    ),
    OperationKind.UPGRADE: Plan(
        steps=(
            Step("copy_for_trial", trial.copy_for_trial, trial.remove_trial),
            Step("migrate_copy", trial.migrate_copy),
            Step("try_version", trial.try_version, starts=True),
            Step("stop_box", upgrade.stop_for_swap, upgrade.start_as_before),
            Step("snapshot", upgrade.keep_replaced, upgrade.put_right),
            Step("migrate", upgrade.migrate_for_good, upgrade.put_right),
            _PROVE,
            Step("take_version", upgrade.take_version, upgrade.give_back),
            *_START_TAKEN,
        ),
        succeed=_has_version,
        fail=_stays,
    ),
    OperationKind.ROLLBACK: Plan(
        steps=(
            Step("take_port", trial.take_port, trial.remove_trial),
            Step("stop_box", upgrade.stop_for_swap, upgrade.start_as_before),
            Step("snapshot", upgrade.keep_replaced, upgrade.put_right),
            Step("unpack_snapshot", upgrade.place_earlier, upgrade.put_right),
            _PROVE,
            Step("take_version", upgrade.take_version),  # not taken back: the copy that it came from is no copy any more
            *_START_TAKEN,
        ),
        succeed=_has_version,
        fail=_stays,
    ),
}
