"""What `aihub check` looks at where servers run in containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from backend.checks.shape import Finding
from backend.i18n import _
from backend.networks import layout
from backend.networks.firewall import is_in_force
from backend.serving import wiring
from backend.settings import Settings


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
            "{user} is in the group {group} of {socket}: what answers requests can become root by it",
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
