"""What `aihub check` looks at: each finding says what is well, or what is not and the cure."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import select

from backend import audit, disk, listeners, networks, portpool, service, versions, wiring
from backend.domain import Caller, Status
from backend.keyring import Keyring
from backend.munge import Unmunge
from backend.orphans import Orphans, find_orphans, remove_orphans
from backend.registry.database import Registry
from backend.registry.models import Port, Server
from backend.settings import Settings

State = Literal["ok", "warning", "failure"]
SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
BACKLOG: Final = 4096
"""What a server's box asks for, so that a crowd waits in the queue instead of being refused."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it is, and the cure where it is not well."""

    name: str
    state: State
    detail: str
    cure: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def state_folder(settings: Settings) -> Iterator[Finding]:
    """The state is there, closed to others, and has room."""
    status = settings.state_dir.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        yield Finding(name="state", state="failure", detail=f"{settings.state_dir} is open to others ({mode:04o})", cure="chmod 0700 it")
    else:
        yield Finding(name="state", state="ok", detail=f"{settings.state_dir}, owner uid {status.st_uid}")
    yield from _strangers(settings, status)
    for place in {path.stat().st_dev: path for path in (settings.state_dir, disk.volume(settings))}.values():
        free = shutil.disk_usage(place).free
        enough = free >= settings.disk_least
        detail = f"{free / disk.GIB:.1f} GiB free for {place}, {settings.disk_least / disk.GIB:.1f} wanted (disk_least)"
        yield Finding(
            name="disk", state="ok" if enough else "failure", detail=detail, cure="" if enough else f"free space, or move {place}"
        )


def _strangers(settings: Settings, state: os.stat_result) -> Iterator[Finding]:
    """What root made in the state, the service's account could not use."""
    database = wiring.open_registry(settings).path
    registry = [] if database is None else [database.with_name(database.name + end) for end in ("", "-wal", "-shm", ".lock")]
    ours = [settings.keys_file, *registry, settings.run_dir, settings.servers_dir, *settings.copies_dirs]
    found = [str(path) for path in ours if path.exists() and path.stat().st_uid != state.st_uid]
    if found:
        detail = f"{', '.join(found)} belongs to another account than {settings.state_dir}, so the service cannot use it"
        yield Finding(name="owner", state="failure", detail=detail, cure=f"chown {state.st_uid}:{state.st_gid} it")


def socket_folder(settings: Settings) -> Iterator[Finding]:
    """Users can reach the socket."""
    closed = [str(folder) for folder in settings.socket.parents if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH]
    if closed and settings.socket_group is None:
        detail, cure = (
            f"only uid {os.geteuid()} and root reach {settings.socket}: {closed[0]} is closed",
            "set socket: /run/aihub/service.sock",
        )
        yield Finding(name="socket", state="warning", detail=detail, cure=cure)
    else:
        yield Finding(name="socket", state="ok", detail=str(settings.socket))


def keys(settings: Settings) -> Iterator[Finding]:
    """Every stored secret can be read, and by the newest key."""
    keyring, registry = Keyring(settings.keys_file), wiring.open_registry(settings)
    with registry.reading() as session:
        for row in session.scalars(select(Server)):
            keyring.decrypt(row.secret_access_key)
            keyring.decrypt(row.box_keys)
    if keyring.is_settled(registry):
        yield Finding(name="keys", state="ok", detail=f"{settings.keys_file}, newest {keyring.newest}")
    else:
        detail = "some secrets are still under an older key: a rotation was cut short"
        yield Finding(name="keys", state="warning", detail=detail, cure="run `aihub keys rotate` again, which finishes it")


def registry_revision(settings: Settings) -> Iterator[Finding]:
    """The tables have the form that this version needs."""
    now, needed = wiring.open_registry(settings).revision(), Registry.newest_revision()
    if now == needed:
        yield Finding(name="registry", state="ok", detail=f"revision {now}")
    else:
        yield Finding(name="registry", state="failure", detail=f"revision {now}, {needed} is needed", cure="run `aihub init`")


def user_directory(settings: Settings) -> Iterator[Finding]:
    """NSS answers, and there is a group of admins."""
    directory = wiring.make_directory(settings)
    caller = directory.caller(uid=os.geteuid())
    yield Finding(name="users and groups", state="ok", detail=f"NSS knows {caller.user} in {len(caller.groups)} groups")
    if directory.group(name=settings.admin_group) is None:
        detail, cure = f"there is no group {settings.admin_group}, so only root is an admin", "make it, or set admin_group"
        yield Finding(name="admins", state="warning", detail=detail, cure=cure)
    else:
        yield Finding(name="admins", state="ok", detail=f"group {settings.admin_group}")


def runtime(settings: Settings) -> Iterator[Finding]:
    """What runs the servers is there."""
    chosen = wiring.make_runtime(settings)
    if settings.runtime == "docker":
        wiring.make_engine(settings).ensure_root()
    if chosen.isolates:
        yield Finding(name="runtime", state="ok", detail=chosen.name)
    else:
        detail = f"{chosen.name} keeps groups apart by nothing, which allow_unisolated accepts"
        yield Finding(name="runtime", state="warning", detail=detail, cure="use it for one group, development or a demo only")
    if settings.runtime == "docker":  # nginx is in the image
        return
    nginx = shutil.which(settings.nginx)
    state: State = "ok" if nginx else "failure"
    yield Finding(
        name="nginx", state=state, detail=nginx or f"there is no {settings.nginx}", cure="" if nginx else "install nginx, or set nginx"
    )


def resolvers(settings: Settings) -> Iterator[Finding]:
    """Servers in containers can look up the names that they may reach."""
    if settings.runtime != "docker":
        return
    found = networks.resolvers(settings)
    if found:
        yield Finding(name="DNS", state="ok", detail=f"the servers ask {', '.join(found)}")
    elif networks.has_names(networks.allow_list(settings)):
        detail = "there is no DNS server that containers can reach, so the servers do not find what endpoint_url and egress name"
        yield Finding(name="DNS", state="failure", detail=detail, cure="set resolvers to the site's DNS servers")
    else:
        yield Finding(name="DNS", state="ok", detail="none, and none is needed: endpoint_url and egress are addresses")


def environments(settings: Settings) -> Iterator[Finding]:
    """MLflow is installed, in every version that a server has."""
    there, offered = versions.installed(settings), versions.offered(settings)
    cure = f"run tracking_server/install VERSION {settings.envs_dir}/mlflow-VERSION"
    if settings.runtime == "docker":
        cure = f"build the image {settings.image} of that version (tracking_server/build-image); the service sees it within seconds"
    if offered:
        yield Finding(name="MLflow", state="ok", detail=f"on offer: {', '.join(offered)}")
    elif settings.runtime == "docker" and not versions.is_published(settings):
        detail = "the service has not looked yet which images there are"
        yield Finding(name="MLflow", state="warning", detail=detail, cure="when it runs, it looks within seconds")
        return
    else:
        lack = "has an image" if settings.runtime == "docker" else f"is installed in {settings.envs_dir}"
        yield Finding(name="MLflow", state="failure", detail=f"no version on offer {lack}", cure=cure)
    with wiring.open_registry(settings).reading() as session:
        used = set(session.scalars(select(Server.mlflow_version)))
    missing = sorted(used - set(there))
    if missing:
        yield Finding(name="MLflow in use", state="failure", detail=f"servers have {', '.join(missing)}, not installed", cure=cure)


def ports(settings: Settings) -> Iterator[Finding]:
    """There are ports left, and nobody else sits on those that servers have."""
    with wiring.open_registry(settings).reading() as session:
        known = {row.port: row.server_id for row in session.scalars(select(Port))}
    total, given = settings.port_last - settings.port_first + 1, len([owner for owner in known.values() if owner])
    detail = f"{settings.port_first}-{settings.port_last}: {given} of {total} given, {len(known) - given} rest"
    tight = total - len(known) < max(1, total // 20)
    yield Finding(name="ports", state="warning" if tight else "ok", detail=detail, cure="widen port_first to port_last" if tight else "")
    free = next((port for port in range(settings.port_first, settings.port_last + 1) if port not in known), None)
    if free is not None and not portpool.is_bindable(settings.listen_address, free):
        detail, cure = f"port {free} of {settings.listen_address} cannot be bound", "see who holds it, or correct listen_address"
        yield Finding(name="port to give", state="warning", detail=detail, cure=cure)
    yield from _taken_ports(settings)


def _taken_ports(settings: Settings) -> Iterator[Finding]:
    """Of the servers that do not run: one that runs holds its own."""
    at_rest = (Server.status == Status.STOPPED) | Server.deleted_at.is_not(None)
    with wiring.open_registry(settings).reading() as session:
        mine = session.scalars(select(Server.port).where(at_rest).order_by(Server.port)).all()
    taken = [str(port) for port in mine if not portpool.is_bindable(settings.listen_address, port)]
    if taken:
        detail = f"another program holds {', '.join(taken)}, which servers have that are stopped or deleted"
        yield Finding(name="ports taken", state="warning", detail=detail, cure="see who holds them: such a server cannot start")


def backlog(_settings: Settings) -> Iterator[Finding]:
    """The kernel lets a crowd wait for a sleeping server."""
    most = int(SOMAXCONN.read_text(encoding="ascii"))
    enough = most >= BACKLOG
    cure = "" if enough else f"sysctl net.core.somaxconn={BACKLOG}"
    yield Finding(name="somaxconn", state="ok" if enough else "warning", detail=f"{most} ({BACKLOG} wanted)", cure=cure)


def orphans(settings: Settings) -> Iterator[Finding]:
    """Nothing is here that no server of the registry owns."""
    found = look_for_orphans(settings)
    if not found:
        yield Finding(name="orphans", state="ok", detail="none")
    else:
        yield Finding(name="orphans", state="warning", detail=str(found), cure="look at them, then run `aihub check --remove-orphans`")


def running(settings: Settings) -> Iterator[Finding]:
    """The service runs."""
    seen, alive = service.reconciler_seen(settings)
    when = "never" if seen is None else seen.isoformat(timespec="seconds")
    cure = "" if alive else "run `aihub serve`, or start its systemd unit"
    yield Finding(name="service", state="ok" if alive else "warning", detail=f"reconciler last seen: {when}", cure=cure)


def other_hosts(settings: Settings) -> Iterator[Finding]:
    """Callers on other hosts are listened to, and can prove who they are."""
    for name, address in listeners.addresses(settings).items():
        listens = listeners.somebody_listens(address)
        cure = "" if listens else "start the service; `aihub serve` says what it lacks"
        detail = address if listens else f"nobody listens at {address}"
        yield Finding(name=f"{name}_listen", state="ok" if listens else "warning", detail=detail, cure=cure)
    if settings.munge_listen is not None:
        Unmunge(settings.munge_socket).try_it()
        yield Finding(name="MUNGE", state="ok", detail="munged makes and reads credentials")


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("state", state_folder),
    ("socket", socket_folder),
    ("registry", registry_revision),
    ("keys", keys),
    ("users and groups", user_directory),
    ("runtime", runtime),
    ("DNS", resolvers),
    ("MLflow", environments),
    ("ports", ports),
    ("somaxconn", backlog),
    ("other hosts", other_hosts),
    ("orphans", orphans),
    ("service", running),
)


def look_for_orphans(settings: Settings) -> Orphans:
    """What is on this host and belongs to no server."""
    return find_orphans(
        registry=wiring.open_registry(settings),
        runtime=wiring.make_runtime(settings),
        boxes=wiring.make_boxes(settings),
        copies=wiring.make_copies(settings),
    )


def clear_orphans(settings: Settings, found: Orphans, admin: Caller) -> None:
    """Stop and remove them, databases included; the audit says who had it done. Error: ``box_failed_to_stop``."""
    with wiring.open_registry(settings).session() as session:
        for server_id in found.ids():
            audit.record_orphan(session, caller=admin, server_id=server_id)
    remove_orphans(
        found,
        runtime=wiring.make_runtime(settings),
        boxes=wiring.make_boxes(settings),
        copies=wiring.make_copies(settings),
        timeout=settings.stop_timeout,
    )
