"""What `aihub check` looks at where servers run in containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from backend.checks import room
from backend.checks.shape import Finding
from backend.i18n import _
from backend.networks import layout
from backend.networks.firewall import is_in_force
from backend.registry.models import Server
from backend.runtimes.docker_about import Bound
from backend.serving import wiring
from backend.settings import Settings

SWAPS: Final = Path("/proc/swaps")
BRIDGE: Final = 1023
"""So many interfaces has a bridge at most, whatever its addresses are."""


def daemon(settings: Settings) -> Iterator[Finding]:
    """The service's account has no right to the daemon's socket by itself: what answers requests runs as it, too."""
    socket, account = Path(settings.docker_host.removeprefix("unix://")), settings.state_dir.stat().st_uid
    if settings.runtime != "docker" or account == 0 or not socket.exists():
        return
    caller = wiring.make_directory(settings).caller(uid=account)
    group = next((group for group in caller.groups if group.gid == socket.stat().st_gid), None)
    if group is None:
        detail = _("{user} is not in the group of {socket}: only the reconciler's unit gives it", user=caller.user, socket=socket)
        yield Finding(name="daemon", state="ok", detail=detail)
    else:
        detail = _(
            "{user} is in the group {group} of {socket}: through it, the part that answers requests can become root",
            user=caller.user,
            group=group.name,
            socket=socket,
        )
        cure = _(
            "take {user} out of {group}, then systemctl restart aihub-web aihub-reconciler (docs/howto/docker.md)",
            user=caller.user,
            group=group.name,
        )
        yield Finding(name="daemon", state="warning", detail=detail, cure=cure)


def engine(settings: Settings) -> Iterator[Finding]:
    """The daemon bounds containers as they ask for it, and has room. Error: ``runtime_unavailable``."""
    about = wiring.make_engine(settings).about()
    lacks = [bound for bound in about.lacks if bound != "swap" or _has_swap()]
    for bound in lacks:
        detail, cure = _lack(bound)
        yield Finding(name="limits", state="failure", detail=detail, cure=cure)
    if not lacks:
        yield Finding(name="limits", state="ok", detail=_("the daemon leaves out none of the limits that it reports on"))
    if about.folder is not None:
        yield from room.daemons_disk(settings, about.folder)


def _has_swap() -> bool:
    """The file has a line of titles, then one for each area. Without any, no container can swap."""
    return len(SWAPS.read_text(encoding="utf-8", errors="replace").splitlines()) > 1


def _lack(bound: Bound) -> tuple[str, str]:
    """What is not bounded and why, and the cure. The daemon leaves a bound out when a container is made, so a new boot is not enough."""
    if bound == "memory":
        return (
            _("the servers' memory is not bounded: the kernel has no control group for it, and the daemon leaves the limit out"),
            _("boot with cgroup_enable=memory in the kernel's command line, then stop and start every server"),
        )
    if bound == "swap":
        return (
            _("the servers' swap is not bounded: the kernel does not count it, and the daemon leaves the limit out"),
            _("boot with swapaccount=1 in the kernel's command line, or without swap, then stop and start every server"),
        )
    if bound == "cpus":
        return (
            _("the servers' processors are not bounded: the kernel has no quota for them, and the daemon leaves the limit out"),
            _("boot a kernel with CONFIG_CFS_BANDWIDTH, and without cgroup_disable=cpu, then stop and start every server"),
        )
    if bound == "pids":
        return (
            _("the servers' processes are not bounded: the kernel has no control group for them, and the daemon leaves the limit out"),
            _("boot a kernel with CONFIG_CGROUP_PIDS, and without cgroup_disable=pids, then stop and start every server"),
        )
    return (
        _("the servers may make every system call: the daemon has no seccomp filter, or none by default"),
        _("boot a kernel with CONFIG_SECCOMP_FILTER, and take seccomp-profile out of daemon.json, then stop and start every server"),
    )


def resolvers(settings: Settings) -> Iterator[Finding]:
    """Servers in containers can look up the names that they may reach."""
    if settings.runtime != "docker":
        return
    found = layout.resolvers(settings)
    if found:
        yield Finding(name="DNS", state="ok", detail=_("the servers ask {addresses}", addresses=", ".join(found)))
    elif layout.has_names(layout.allow_list(settings)):
        detail = _("there is no DNS server that containers can reach, so the servers do not find what endpoint_url and egress name")
        yield Finding(name="DNS", state="failure", detail=detail, cure=_("set resolvers to the site's DNS servers"))
    else:
        yield Finding(name="DNS", state="ok", detail=_("none, and none is needed: endpoint_url and egress are addresses"))


def addresses(settings: Settings) -> Iterator[Finding]:
    """Each server has an address in both networks for each of its containers; Docker's own words say little when there is none left."""
    if settings.runtime != "docker":
        return
    room = {name: _room_in(getattr(settings, name)) for name in ("gate_network", "mlflow_network")}
    name = min(room, key=lambda each: room[each])
    with wiring.open_registry(settings).reading() as session:
        servers = session.scalar(select(func.count()).select_from(Server).where(Server.deleted_at.is_(None))) or 0
    detail = _(
        "{name} ({network}) has room for {most} servers; there are {servers}, and ports for {ports}",
        name=name,
        network=getattr(settings, name),
        most=room[name],
        servers=servers,
        ports=settings.port_last - settings.port_first + 1,
    )
    tight = room[name] - servers < max(1, room[name] // 20)
    if not tight:
        cure = ""
    elif room[name] < BRIDGE:
        cure = _("stop all servers, remove their network and set {name} to a wider one (docs/howto/docker.md)", name=name)
    else:
        cure = _("run further servers on another host: a bridge of the kernel has no room for more")
    yield Finding(name="addresses", state="warning" if tight else "ok", detail=detail, cure=cure)


def _room_in(network: str) -> int:
    """For how many containers: the first address is the bridge's own, and the network's and the one for all are nobody's."""
    return max(0, min(IPv4Network(network).num_addresses - 3, BRIDGE))


def firewall(settings: Settings) -> Iterator[Finding]:
    """The rules around the servers' containers are in force."""
    if settings.runtime != "docker":
        return
    install = layout.install_id(settings.state_dir)
    routed, bridged = layout.table_name(install), layout.bridge_table_name(install)
    if os.geteuid() != 0:
        detail = _("only root sees whether the tables {routed} and {bridged} are in force", routed=routed, bridged=bridged)
        yield Finding(name="firewall", state="warning", detail=detail, cure=_("run this as root"))
    elif open_way := _open_way(routed, bridged):
        yield Finding(name="firewall", state="failure", detail=open_way, cure=_("systemctl start aihub-firewall (docs/howto/docker.md)"))
    else:
        detail = _("the tables {routed} and {bridged} are in force", routed=routed, bridged=bridged)
        yield Finding(name="firewall", state="ok", detail=detail)


def _open_way(routed: str, bridged: str) -> str:
    """What the containers reach because a table is missing; empty where none is."""
    if not is_in_force(routed):
        return _("the table {table} is not in force, so the servers' containers reach almost everything", table=routed)
    if not is_in_force(bridged):
        return _(
            "the table {table} is not in force, so the servers' containers reach each other where bridge-nf-call-iptables is not 1",
            table=bridged,
        )
    return ""
