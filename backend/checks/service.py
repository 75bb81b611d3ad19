"""What `aihub check` looks at: each finding says what is well, or what is not and the cure."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlwf.mounts import MOUNTS, NETWORK, kinds_of
from sqlalchemy import select

from backend import listeners, versions
from backend.api.service import reconciler_seen
from backend.checks import containers, room
from backend.checks.shape import Check, Finding
from backend.domain import Caller, Status
from backend.i18n import _
from backend.munge import Unmunge
from backend.reconcile.orphans import Orphans, find_orphans, remove_orphans
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Port, Server
from backend.serving import wiring
from backend.settings import Settings
from backend.wishes import audit, portpool

SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
BACKLOG: Final = 4096
"""What a server's box asks for, so that a crowd waits in the queue instead of being refused."""


def state_folder(settings: Settings) -> Iterator[Finding]:
    """The state is there, closed to others, and has room."""
    status = settings.state_dir.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        detail = _("{path} is open to others ({mode})", path=settings.state_dir, mode=f"{mode:04o}")
        yield Finding(name="state", state="failure", detail=detail, cure=_("chmod 0700 it"))
    else:
        yield Finding(name="state", state="ok", detail=_("{path}, owner uid {uid}", path=settings.state_dir, uid=status.st_uid))
    yield from _strangers(settings, status)
    yield from _far(settings)
    yield from room.own_disks(settings)


def _far(settings: Settings) -> Iterator[Finding]:
    """Over a network SQLite's locks and shared memory do not hold: a server refuses its database there."""
    kind_of = kinds_of(MOUNTS)
    for place in dict.fromkeys(room.places(settings)):
        kind, _options = kind_of(place)
        if kind in NETWORK:
            detail = _("{path} is on a network file system ({kind}), where SQLite loses data", path=place, kind=kind)
            yield Finding(name="state", state="failure", detail=detail, cure=_("move it to a local disk"))


def _strangers(settings: Settings, state: os.stat_result) -> Iterator[Finding]:
    """What root made in the state, the service's account could not use."""
    database = wiring.open_registry(settings).path
    registry = [] if database is None else [database.with_name(database.name + end) for end in ("", "-wal", "-shm", ".lock")]
    ours = [settings.keys_file, *registry, settings.run_dir, settings.servers_dir, *settings.copies_dirs]
    found = ", ".join(str(path) for path in ours if path.exists() and path.stat().st_uid != state.st_uid)
    if found:
        detail = _("{found} belongs to another account than {path}, so the service cannot use it", found=found, path=settings.state_dir)
        yield Finding(name="owner", state="failure", detail=detail, cure=_("chown {uid}:{gid} it", uid=state.st_uid, gid=state.st_gid))


def socket_folder(settings: Settings) -> Iterator[Finding]:
    """Users can reach the socket."""
    closed = [str(folder) for folder in settings.socket.parents if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH]
    if closed and settings.socket_group is None:
        detail = _("only uid {uid} and root reach {socket}: {path} is closed", uid=os.geteuid(), socket=settings.socket, path=closed[0])
        cure = _("set socket: /run/aihub/service.sock")
        yield Finding(name="socket", state="warning", detail=detail, cure=cure)
    else:
        yield Finding(name="socket", state="ok", detail=str(settings.socket))


def keys(settings: Settings) -> Iterator[Finding]:
    """Every stored secret can be read, and by the newest key."""
    keyring, registry = Keyring(settings.keys_file), wiring.open_registry(settings)
    keyring.check(registry)
    if keyring.is_settled(registry):
        yield Finding(name="keys", state="ok", detail=_("{path}, newest {key}", path=settings.keys_file, key=keyring.newest))
    else:
        detail = _("some secrets are still under an older key: a rotation was interrupted")
        yield Finding(name="keys", state="warning", detail=detail, cure=_("run `aihub keys rotate` again, which finishes it"))


def registry_revision(settings: Settings) -> Iterator[Finding]:
    """The tables have the form that this version needs."""
    registry = wiring.open_registry(settings)
    registry.refuse_newer()
    now, needed = registry.revision(), Registry.newest_revision()
    if now == needed:
        yield Finding(name="registry", state="ok", detail=_("revision {now}", now=now))
    else:
        detail = _("revision {now}, {needed} is needed", now=now, needed=needed)
        yield Finding(name="registry", state="failure", detail=detail, cure=_("run `aihub init`"))


def user_directory(settings: Settings) -> Iterator[Finding]:
    """NSS answers, and there is a group of admins."""
    directory = wiring.make_directory(settings)
    caller = directory.caller(uid=os.geteuid())
    known = _("NSS knows {user} in {count} groups", user=caller.user, count=len(caller.groups))
    yield Finding(name="users and groups", state="ok", detail=known)
    if directory.group(name=settings.admin_group) is None:
        detail = _("there is no group {group}, so only root is an admin", group=settings.admin_group)
        yield Finding(name="admins", state="warning", detail=detail, cure=_("make it, or set admin_group"))
    else:
        yield Finding(name="admins", state="ok", detail=_("group {group}", group=settings.admin_group))


def runtime(settings: Settings) -> Iterator[Finding]:
    """What runs the servers is there."""
    chosen = wiring.make_runtime(settings)
    if settings.runtime == "docker":
        wiring.make_engine(settings).ensure_root()
    if chosen.isolates:
        yield Finding(name="runtime", state="ok", detail=chosen.name)
    else:
        detail = _("{runtime} does not keep groups apart, which allow_unisolated accepts", runtime=chosen.name)
        yield Finding(name="runtime", state="warning", detail=detail, cure=_("use it for one group, development or a demo only"))
    if settings.runtime == "docker":
        yield from containers.engine(settings)
        return  # nginx is in the image
    nginx = shutil.which(settings.nginx)
    if nginx:
        yield Finding(name="nginx", state="ok", detail=nginx)
    else:
        lack = _("there is no {program}", program=settings.nginx)
        yield Finding(name="nginx", state="failure", detail=lack, cure=_("install nginx, or set nginx"))


def environments(settings: Settings) -> Iterator[Finding]:
    """MLflow is installed, in every version that a server has."""
    there, offered = versions.installed(settings), versions.offered(settings)
    if settings.runtime == "docker":
        lack = _("no version on offer has an image")
        cure = _(
            "build the image {image} of that version (tracking_server/build-image); the service sees it within seconds",
            image=settings.image,
        )
    else:
        lack = _("no version on offer is installed in {path}", path=settings.envs_dir)
        uv = Path(sys.executable).parent  # where a site has the uv that it needs, and which is not in PATH
        cure = _("run PATH={uv}:$PATH tracking_server/install VERSION {path}/mlflow-VERSION", uv=uv, path=settings.envs_dir)
    if offered:
        yield Finding(name="MLflow", state="ok", detail=_("on offer: {versions}", versions=", ".join(offered)))
    elif settings.runtime == "docker" and not versions.is_published(settings):
        detail = _("the service has not looked yet which images there are")
        yield Finding(name="MLflow", state="warning", detail=detail, cure=_("when it runs, it looks within seconds"))
        return
    else:
        yield Finding(name="MLflow", state="failure", detail=lack, cure=cure)
    with wiring.open_registry(settings).reading() as session:
        used = set(session.scalars(select(Server.mlflow_version)))
    missing = ", ".join(sorted(used - set(there)))
    if missing:
        detail = _("servers need {versions}, not installed", versions=missing)
        yield Finding(name="MLflow in use", state="failure", detail=detail, cure=cure)


def ports(settings: Settings) -> Iterator[Finding]:
    """There are ports left, and nobody else sits on those that servers have."""
    with wiring.open_registry(settings).reading() as session:
        known = {row.port: row.server_id for row in session.scalars(select(Port))}
        left = portpool.count_free(session, settings)
    span = range(settings.port_first, settings.port_last + 1)
    total, given = len(span), sum(owner is not None and port in span for port, owner in known.items())
    bounds = f"{settings.port_first}-{settings.port_last}"
    detail = _("{range}: {given} of {total} given out, {rest} resting", range=bounds, given=given, total=total, rest=total - given - left)
    tight = left < max(1, total // 20)
    cure = _("widen port_first to port_last") if tight else ""
    yield Finding(name="ports", state="warning" if tight else "ok", detail=detail, cure=cure)
    free = next((port for port in span if port not in known), None)
    if free is not None and not portpool.is_bindable(settings.listen_address, free):
        detail = _("port {port} of {address} cannot be bound", port=free, address=settings.listen_address)
        cure = _("see who holds it, or correct listen_address")
        yield Finding(name="port to give", state="warning", detail=detail, cure=cure)
    yield from _taken_ports(settings)


def _taken_ports(settings: Settings) -> Iterator[Finding]:
    """Of the servers that do not run: one that runs holds its own."""
    at_rest = (Server.status == Status.STOPPED) | Server.deleted_at.is_not(None)
    with wiring.open_registry(settings).reading() as session:
        mine = session.scalars(select(Server.port).where(at_rest).order_by(Server.port)).all()
    taken = ", ".join(str(port) for port in mine if not portpool.is_bindable(settings.listen_address, port))
    if taken:
        detail = _("another program holds {ports}, which belong to servers that are stopped or deleted", ports=taken)
        yield Finding(name="ports taken", state="warning", detail=detail, cure=_("see who holds them: such a server cannot start"))


def backlog(_settings: Settings) -> Iterator[Finding]:
    """The kernel lets a crowd wait for a sleeping server."""
    most = int(SOMAXCONN.read_text(encoding="ascii"))
    enough = most >= BACKLOG
    cure = "" if enough else f"sysctl net.core.somaxconn={BACKLOG}"
    yield Finding(
        name="somaxconn", state="ok" if enough else "warning", detail=_("{most} ({least} wanted)", most=most, least=BACKLOG), cure=cure
    )


def gateways(settings: Settings) -> Iterator[Finding]:
    """An open gateway connects to public addresses and to the object store, so members should not be who names that."""
    opened = ", ".join(size.name for size in settings.sizes if size.gateway and not size.gateway_private)
    if opened and not settings.endpoint_url_fixed:
        detail = _("with the sizes {sizes}, members can choose an address and port to which their server's gateway connects", sizes=opened)
        yield Finding(name="gateway", state="warning", detail=detail, cure=_("set endpoint_url"))


def orphans(settings: Settings) -> Iterator[Finding]:
    """Nothing is here that no server of the registry owns."""
    found = look_for_orphans(settings)
    if not found:
        yield Finding(name="orphans", state="ok", detail=_("none"))
    else:
        cure = _("look at them, then run `aihub check --remove-orphans`")
        yield Finding(name="orphans", state="warning", detail=str(found), cure=cure)


def running(settings: Settings) -> Iterator[Finding]:
    """The service runs."""
    seen, alive = reconciler_seen(settings)
    detail = _("reconciler last seen: {when}", when=_("never") if seen is None else seen.isoformat(timespec="seconds"))
    cure = "" if alive else _("run `aihub serve`, or start its systemd unit")
    yield Finding(name="service", state="ok" if alive else "warning", detail=detail, cure=cure)


def other_hosts(settings: Settings) -> Iterator[Finding]:
    """Callers on other hosts are listened to, and can prove who they are."""
    for name, address in listeners.addresses(settings).items():
        listens = listeners.somebody_listens(address)
        cure = "" if listens else _("start the service; `aihub serve` says what it lacks")
        detail = address if listens else _("nobody listens at {address}", address=address)
        yield Finding(name=f"{name}_listen", state="ok" if listens else "warning", detail=detail, cure=cure)
    if settings.munge_listen is not None:
        Unmunge(settings.munge_socket).try_it()
        yield Finding(name="MUNGE", state="ok", detail=_("munged makes and reads credentials"))


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("state", state_folder),
    ("socket", socket_folder),
    ("registry", registry_revision),
    ("keys", keys),
    ("users and groups", user_directory),
    ("runtime", runtime),
    ("daemon", containers.daemon),
    ("DNS", containers.resolvers),
    ("addresses", containers.addresses),
    ("firewall", containers.firewall),
    ("MLflow", environments),
    ("ports", ports),
    ("somaxconn", backlog),
    ("other hosts", other_hosts),
    ("gateway", gateways),
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
        registry=wiring.open_registry(settings),
        runtime=wiring.make_runtime(settings),
        boxes=wiring.make_boxes(settings),
        copies=wiring.make_copies(settings),
        timeout=settings.stop_timeout,
    )
