"""Steps that try a new version: on a copy, in a box beside the server's own; and what starts a box where no user reaches it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from mlwf.secret import Secret
from sqlalchemy import select

from backend import sizes
from backend.domain import Box, BoxState, User
from backend.errors import ServiceError
from backend.plans import box_steps as box
from backend.plans.upgrade_state import about, has_taken_version, is_swapping, recover_earlier
from backend.plans.wanted import wanted_box
from backend.plans.world import Work, World
from backend.registry.models import Port, Server
from backend.wishes import portpool
from backend.wishes.trial_words import FOLDER, USER

MIGRATE_SECONDS: Final = 3600.0
_LOOPBACK: Final = "127.0.0.1"
_QUIET: Final = dict.fromkeys(("genai_jobs", "allow_gateway", "gateway_private", "webhooks"), False)


def copy_for_trial(work: Work) -> None:
    """A box beside the server's own, with a copy of its database and no user but the trial's."""
    if _is_past_trial(work):
        return
    recover_earlier(work)
    world, server, trial = work.world, work.server(), _trial_id(work)
    port = take_trial_port(work)
    _remove_box_of(world, trial)
    wanted = trial_box(work, work.becoming(), port)
    world.boxes.install(replace(wanted, server_id=trial, settings={**wanted.settings, "server_id": trial}))
    world.replaced.make(trial, work.box_directory, about(work, server))
    world.replaced.unpack(trial, world.boxes.directory(trial))
    world.replaced.remove(trial)


def take_port(work: Work) -> None:
    """A port for the proof, before anything is stopped for it. Error: ``ports_exhausted``."""
    if not _is_past_trial(work):
        take_trial_port(work)


def migrate_copy(work: Work) -> None:
    """The copy has the new schema. Errors: ``migration_failed``, ``version_missing``."""
    if not _is_past_trial(work):
        migrate(work, _trial_id(work))


def try_version(work: Work) -> None:
    """The new version does on the copy what clients ask for. Errors: ``version_unfit``, ``box_failed_to_start``."""
    if _is_past_trial(work):
        return
    world = work.world
    address = start_aside(work, _trial_id(work))
    world.trial.try_out(address=address, password=password(work), version=work.becoming().mlflow_version, folder=FOLDER)
    _remove_box_of(world, _trial_id(work))


def remove_trial(work: Work) -> None:
    """Nothing of the trial is left."""
    forget_trial(work.world, work.server_id, _trial_id(work))


def remove_boxes(work: Work) -> None:
    """Nothing is left of the box's directory, nor of a trial that could not be taken back."""
    box.remove_box(work)
    left = work.server().trial_id
    if left is not None:
        forget_trial(work.world, work.server_id, left)


def forget_trial(world: World, server_id: str, trial: str) -> None:
    """Nothing is left of that trial of the server, and its port is anybody's. Error: ``box_failed_to_stop``; it is known still, then."""
    _remove_box_of(world, trial)
    with world.registry.session() as session:
        portpool.release_all(session, trial)
        server = session.get_one(Server, server_id)
        if server.trial_id == trial:
            server.trial_id = None


def _is_past_trial(work: Work) -> bool:
    return is_swapping(work) or has_taken_version(work)


def _trial_id(work: Work) -> str:
    return str(work.payload["trial"])


def password(work: Work) -> Secret:
    """The trial's own: it opens no other box."""
    return Secret(work.payload["trial_password"])


def take_trial_port(work: Work) -> int:
    """The trial's port, and the registry knows whose box it is; the same one when asked again. It knows one trial of a server: what is left
    of an earlier one goes first.
    """
    trial, settings, left = _trial_id(work), work.world.settings, work.server().trial_id
    if left is not None and left != trial:
        forget_trial(work.world, work.server_id, left)
    with work.world.registry.session() as session:
        server = session.get_one(Server, work.server_id)
        server.trial_id = trial
        port = session.scalars(select(Port.port).where(Port.server_id == trial)).first()
        return portpool.allocate(session, settings, trial) if port is None else port


def _aside(work: Work) -> str:
    """Where a trial listens: loopback, unless a container has its own."""
    return work.world.settings.listen_address if work.world.runtime.isolates else _LOOPBACK


def trial_box(work: Work, server: Server, port: int) -> Box:
    """The box of that row, on the trial's port, with the trial's user alone, and without what acts by itself on what lies in the database:
    it has the server's own keys, and a job or webhook of the copy would cost or tell as one of the server does.
    """
    world = work.world
    wanted = wanted_box(server, world.settings, world.keyring, users=(User(name=USER, bcrypt=work.payload["trial_bcrypt"]),))
    listen = str(wanted.settings["listen"]).rpartition(":")[0] if world.runtime.isolates else _LOOPBACK
    settings = {
        **wanted.settings,
        "listen": f"{listen}:{port}",
        "public_hosts": [portpool.joined(_aside(work), port)],
        "origins": [],
        **_QUIET,
    }
    return replace(wanted, settings=settings, ticket_keys=(), tokens=(), revoked=())


def start_aside(work: Work, server_id: str) -> tuple[str, int]:
    """Start the box of that id on the trial's port and wait until it answers; where."""
    world, target, directory = work.world, work.becoming(), work.world.boxes.directory(server_id)
    address = (_aside(work), take_trial_port(work))
    world.runtime.stop(server_id=server_id, directory=directory, timeout=0)
    size = sizes.in_force(world.settings, target.size)
    world.runtime.start(server_id=server_id, directory=directory, mlflow_version=target.mlflow_version, size=size)
    deadline = time.monotonic() + world.settings.start_timeout
    while True:
        seen = world.runtime.observe(server_id=server_id, directory=directory, address=address)
        if seen.state in {BoxState.ASLEEP, BoxState.AWAKE}:
            return address
        if seen.state in {BoxState.ABSENT, BoxState.FAILED} or time.monotonic() > deadline:
            raise _did_not_start(work, server_id, seen.detail)
        world.pause(box.POLL_SECONDS)


def _did_not_start(work: Work, server_id: str, why: str | None) -> ServiceError:
    log, version = box.log_of(work.world, server_id), work.becoming().mlflow_version
    return ServiceError("version_unfit", log=log, version=version, why=why or "it does not answer")


def migrate(work: Work, server_id: str) -> None:
    """Bring the database of the box of that id to the version that the server is to have. Error: ``migration_failed``."""
    world = work.world
    world.runtime.migrate(
        server_id=server_id,
        directory=world.boxes.directory(server_id),
        mlflow_version=work.becoming().mlflow_version,
        timeout=MIGRATE_SECONDS,
    )


def _remove_box_of(world: World, trial: str) -> None:
    world.runtime.stop(server_id=trial, directory=world.boxes.directory(trial), timeout=0)
    world.boxes.remove(trial)
    world.replaced.remove(trial)
