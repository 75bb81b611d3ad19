"""Steps on a box: write, start, wait, stop, remove. Each makes sure of something, and is right to run again."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from backend import sizes
from backend.domain import BoxState, Desired, Observation
from backend.errors import ServiceError
from backend.files import disk
from backend.files.snapshots import database_of
from backend.files.untrusted_files import is_there
from backend.i18n import Told
from backend.plans.replaced import recover
from backend.plans.wanted import users_of, wanted_box
from backend.plans.world import Work, World
from backend.registry.models import Port, Server
from backend.wishes import portpool

POLL_SECONDS: Final = 0.1
CONFIG_SECONDS: Final = 10.0
"""A box takes over a new file within two (docs/reference/box.md); this is for a busy host."""
ACCESS: Final = ("users.json", "ticket_keys.json", "tokens.json", "revoked.json")
"""The files of ``config/`` that say who may in."""
PORT_TRIES: Final = 5
_LOG_LINES: Final = 40
_ANSWERING: Final = (BoxState.AWAKE, BoxState.ASLEEP)


def write_box(work: Work) -> None:
    """The box's settings are the row's."""
    _install(work, work.server())


def write_new_storage(work: Work) -> None:
    """The box has the new keys; the row keeps the old ones until the box was seen well with the new."""
    server = work.server()
    storage, key = work.new_storage(server)
    work.world.boxes.install(wanted_box(server, work.world.settings, work.world.keyring, storage=storage, key=key))


def write_new_users(work: Work) -> None:
    """The box has the new users before the row says so: a full disk leaves the old ones in force in both."""
    server = work.server()
    users = users_of(work.payload["users"])
    work.world.boxes.install(wanted_box(server, work.world.settings, work.world.keyring, users=users))


def wait_users(work: Work) -> None:
    """A box that runs says that it has taken over the new users; one that does not run reads them when it starts. Error: ``box_ill``."""
    wait_taken_over(work.world, work.server(), ACCESS)


def start_box(work: Work) -> None:
    """The box runs. One that says that it failed is started anew: who asks for a start does not want that one."""
    if observe(work.world, work.server()).state is BoxState.FAILED:
        stop_box(work)
    ensure_started(work.world, work.server())


def start_new_box(work: Work) -> None:
    """The box runs, on another port where a stranger holds its own: nobody knows the port of a new server yet."""
    for _ in range(PORT_TRIES):
        try:
            return ensure_started(work.world, work.server())
        except ServiceError as error:
            if error.code != "port_taken":
                raise
            _move_port(work)
    return ensure_started(work.world, work.server())


def start_if_wished(work: Work) -> None:
    """A server that is to run runs: what is wished counts, since what is seen of a box may be that a daemon is away."""
    if work.server().desired == Desired.RUNNING:
        ensure_started(work.world, work.server())


def wait_if_wished(work: Work) -> None:
    """As ``wait_ready``, for a server that is to run."""
    if work.server().desired == Desired.RUNNING:
        wait_ready(work)


def wait_ready(work: Work) -> None:
    """The box answers as ours and MLflow has run in it. Errors: ``box_failed_to_start``, ``port_taken``, ``disk_full``."""
    world, server = work.world, work.server()
    deadline = time.monotonic() + world.settings.start_timeout
    while True:
        seen = observe(world, server)
        if seen.state in _ANSWERING and is_there(database_of(work.box_directory)) is not False:
            work.notes["state"] = seen.state
            return
        if seen.stranger:
            raise ServiceError("port_taken", port=server.port)
        if seen.state is BoxState.ABSENT:
            raise _ended(world, server, seen.detail or "it ended")
        if seen.state is BoxState.FAILED:
            raise _failed(world, server, seen.detail or "it ended")
        if time.monotonic() > deadline:
            raise _failed(world, server, Told("it did not answer within {seconds} seconds", seconds=f"{world.settings.start_timeout:g}"))
        world.pause(POLL_SECONDS)


def wait_new_ready(work: Work) -> None:
    """As ``wait_ready``; where a stranger took the port at the last moment, on another one."""
    for _ in range(PORT_TRIES):
        try:
            return wait_ready(work)
        except ServiceError as error:
            if error.code != "port_taken":
                raise
            stop_box(work)
            _move_port(work)
            start_new_box(work)
    return wait_ready(work)


def wait_restarted(work: Work) -> None:
    """A box that runs has drained and is well with its new settings; one that does not run has nothing to wait for."""
    if wait_taken_over(work.world, work.server()):
        _wait_drained(work)
        wait_ready(work)


def stop_box(work: Work) -> None:
    """The box does not run."""
    ensure_stopped(work.world, work.server())


def remove_box(work: Work) -> None:
    """Nothing is left of the box's directory."""
    work.world.boxes.remove(work.server_id)


def observe(world: World, server: Server) -> Observation:
    """What the runtime sees of the server's box."""
    return world.runtime.observe(server_id=server.id, directory=world.boxes.directory(server.id), address=world.address(server))


def ensure_started(world: World, server: Server) -> None:
    """Start the box unless it runs, on its whole database. Errors: ``port_taken``, ``box_failed_to_start``, ``version_missing``,
    ``database_lost``, ``runtime_unavailable``, as ``recover``.
    """
    directory = world.boxes.directory(server.id)
    if observe(world, server).state is BoxState.SILENT:
        world.runtime.running()  # a daemon that is away says so here; a box that is only silent is left alone
    if observe(world, server).state is not BoxState.ABSENT:
        return
    # First what a killed guard may have left: its own nginx would look like a stranger on the port.
    world.runtime.stop(server_id=server.id, directory=directory, timeout=0)
    world.boxes.reopen(server.id)
    recover(world, server)
    if server.observed_at is not None and is_there(database_of(directory)) is False:  # MLflow would make an empty one
        raise ServiceError("database_lost", path=database_of(directory))
    if not port_is_free(world, server):
        raise ServiceError("port_taken", port=server.port)
    try:
        size = sizes.in_force(world.settings, server.size)
        world.runtime.start(server_id=server.id, directory=directory, mlflow_version=server.mlflow_version, size=size)
    except ServiceError as error:
        if error.code == "box_failed_to_start" and not port_is_free(world, server):
            raise ServiceError("port_taken", port=server.port) from error
        raise


def ensure_stopped(world: World, server: Server) -> None:
    """Stop the box and all that is left of it; then the service reaches its database, whatever code in it did. Errors:
    ``box_failed_to_stop``, ``keeper_failed``.
    """
    world.runtime.stop(server_id=server.id, directory=world.boxes.directory(server.id), timeout=world.settings.stop_timeout)
    world.boxes.reopen(server.id)


def port_is_free(world: World, server: Server) -> bool:
    """Whether the server's box could listen now."""
    return portpool.is_bindable(world.settings.listen_address, server.port)


def _install(work: Work, server: Server) -> None:
    work.world.boxes.install(wanted_box(server, work.world.settings, work.world.keyring))


def _move_port(work: Work) -> None:
    """Give the server another port. The old one goes back: it is not bindable now, so nobody gets it while the stranger has it."""
    with work.world.registry.session() as session:
        server = session.get_one(Server, work.server_id)
        old = server.port
        server.port = portpool.allocate(session, work.world.settings, server.id)
        session.flush()
        row = session.get(Port, old)
        if row is not None and row.server_id == server.id:
            portpool.release(session, old, None)
    write_box(work)


def wait_taken_over(world: World, server: Server, files: Collection[str] | None = None) -> bool:
    """True when the box has taken over these files of ``config/`` (None: all) as they are on disk; False when it does not run. Settings
    that it takes at its next start only, as another address to listen on, are in nobody's way who waits for others. Error: ``box_ill``.
    """
    deadline = time.monotonic() + CONFIG_SECONDS
    while True:
        seen = observe(world, server)
        if seen.state is BoxState.ABSENT:
            return False
        wanted = world.boxes.config(server.id)
        if all(name in seen.config and seen.config[name] == wanted[name] for name in files or wanted):
            return True
        if time.monotonic() > deadline:
            late = Told("it did not take over its new settings within {seconds} seconds", seconds=f"{CONFIG_SECONDS:g}")
            raise ServiceError("box_ill", why=seen.detail or late)
        world.pause(POLL_SECONDS)


def _wait_drained(work: Work) -> None:
    deadline = time.monotonic() + work.world.settings.stop_timeout
    while observe(work.world, work.server()).state is BoxState.DRAINING and time.monotonic() < deadline:
        work.world.pause(POLL_SECONDS)


def log_of(world: World, server_id: str) -> str | None:
    """The last lines that the box of that id wrote; None: it wrote none."""
    return world.runtime.logs(server_id=server_id, directory=world.boxes.directory(server_id), lines=_LOG_LINES) or None


def _ended(world: World, server: Server, why: str) -> ServiceError:
    """Why it ended: something of its own may hold its port still, so who holds it is known when that is gone."""
    error = _failed(world, server, why)
    world.runtime.stop(server_id=server.id, directory=world.boxes.directory(server.id), timeout=0)
    return error if port_is_free(world, server) else ServiceError("port_taken", port=server.port)


def _failed(world: World, server: Server, why: str) -> ServiceError:
    log = log_of(world, server.id)
    if disk.free_bytes(world.settings) < disk.MIB:
        return ServiceError("disk_full", log=log, why=why)
    return ServiceError("box_failed_to_start", log=log, why=why)
