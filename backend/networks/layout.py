"""The two networks of the containers, and the firewall around them: pure, but for the look-up of names.

gate: reached from outside by its published port, reaches nothing. mlflow: reached by nobody, reaches the allow-list. On neither can one
box reach another, this host, or anything else. nftables' own tables beside Docker's rules: a ``drop`` here holds whatever Docker accepts,
and a restart of the daemon touches none of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from backend.i18n import _
from backend.settings import Settings

RESOLV_CONFS: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The second is where systemd-resolved keeps the servers that it asks itself; the first names only its own stub on loopback then."""
ANSWER_SECONDS: Final = 6 * 3600
"""For so long an address that a name had stays allowed after the last look-up that gave it."""
_COMMENT: Final = 120
_ENTRY: Final = re.compile(r"(?P<host>[A-Za-z0-9.-]+(/\d{1,2})?):(?P<port>\d{1,5})")
_DNS: Final = 53
_HTTP: Final = {"http": 80, "https": 443}
Lookup = Callable[[str, int], Iterable[str]]


class EntryError(ValueError):
    """An entry of the allow-list cannot be used; the text says why and the cure."""


@dataclass(frozen=True, order=True)
class Target:
    """One place that MLflow may connect to: an IPv4 network and a TCP port."""

    network: ipaddress.IPv4Network
    port: int

    def __str__(self) -> str:
        address = self.network.network_address if self.network.prefixlen == 32 else self.network
        return f"{address} . {self.port}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An address that a name of the allow-list had, and for how many more seconds it may be connected to."""

    target: Target
    entry: str
    seconds: int

    def __str__(self) -> str:
        return f'{self.target} timeout {self.seconds}s comment "{self.entry}"'


def install_id(state_dir: Path) -> str:
    """Which installation a container, network or table belongs to: several may share one daemon."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]


def network_names(install: str) -> tuple[str, str]:
    """Gate's and mlflow's."""
    return f"aihub-{install}-gate", f"aihub-{install}-mlflow"


def bridge_names(install: str) -> tuple[str, str]:
    """The interfaces of both on the host: 15 characters at most."""
    return f"ahg{install}", f"ahm{install}"


def networks(settings: Settings, install: str) -> dict[str, dict[str, Any]]:
    """By name, the arguments of the SDK's ``networks.create`` and the subnet. One network for all servers: each of its own would use up
    the daemon's address pools at thirty.
    """
    subnets = (settings.gate_network, settings.mlflow_network)
    named = zip(network_names(install), bridge_names(install), subnets, strict=True)
    return {name: _network(install, bridge, subnet) for name, bridge, subnet in named}


def _network(install: str, bridge: str, subnet: str) -> dict[str, Any]:
    return {
        "driver": "bridge",
        "subnet": subnet,
        "enable_ipv6": False,
        "labels": {"org.aihub.install": install},
        "options": {"com.docker.network.bridge.name": bridge, "com.docker.network.bridge.enable_icc": "false"},
    }


def allow_list(settings: Settings) -> tuple[str, ...]:
    """``HOST:PORT`` of all that MLflow may reach: the site's object store and what the admin adds. An endpoint that a member names is not
    in it: else the list would be the members'.
    """
    found = [] if settings.endpoint_url is None else ["{}:{}".format(*place_of(settings.endpoint_url))]
    return tuple(dict.fromkeys([*found, *settings.egress]))


def place_of(url: str) -> tuple[str, int]:
    """Host and port of an object store's address."""
    parts = urlsplit(url)
    return str(parts.hostname), parts.port or _HTTP[parts.scheme]


def has_names(entries: Iterable[str]) -> bool:
    """Whether a DNS server is needed to reach any of them."""
    return any(entry.rpartition(":")[0].strip("0123456789./") for entry in entries)


def resolvers(settings: Settings, resolv_confs: Sequence[Path] = RESOLV_CONFS) -> tuple[str, ...]:
    """The DNS servers that boxes use: the setting's, else the host's own but for those on loopback, which a container cannot reach.
    Empty where the host names no other.
    """
    if settings.resolvers is not None:
        return settings.resolvers
    return next(filter(None, map(_reachable_servers, resolv_confs)), ())


def _reachable_servers(resolv_conf: Path) -> tuple[str, ...]:
    lines = resolv_conf.read_text(encoding="utf-8").splitlines() if resolv_conf.exists() else []
    named = [words[1] for line in lines if (words := line.split())[:1] == ["nameserver"] and len(words) > 1]
    return tuple(address for address in named if _is_ipv4(address) and not ipaddress.ip_address(address).is_loopback)


def targets(entries: Sequence[str], lookup: Lookup | None = None) -> Iterator[Target]:
    """The addresses of each entry now. Error: ``EntryError`` for one that has no form, no address, or leads to this host's loopback."""
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise EntryError(_("egress: {entry!r} is not HOST:PORT or NETWORK/BITS:PORT; write it so", entry=entry))
        for network in _addresses(entry, match["host"], int(match["port"]), lookup or look_up):
            if network.is_loopback or network.is_link_local:
                raise EntryError(
                    _(
                        "egress: {entry} leads to {network}, which boxes must not reach; correct the name or the entry",
                        entry=entry,
                        network=network,
                    )
                )
            yield Target(network, int(match["port"]))


def _addresses(entry: str, host: str, port: int, lookup: Lookup) -> list[ipaddress.IPv4Network]:
    try:
        return [ipaddress.IPv4Network(host)]
    except ValueError as error:
        if "/" in host:
            raise EntryError(_("egress: {entry} is not a network ({why}); correct it", entry=entry, why=str(error))) from None
    try:
        return [ipaddress.IPv4Network(address) for address in sorted(set(lookup(host, port)))]
    except OSError as error:
        why = error.strerror or str(error)
        raise EntryError(_("egress: {host} has no address now ({why}); correct the name, or try again", host=host, why=why)) from None


def look_up(host: str, port: int) -> list[str]:
    """The IPv4 addresses that the name has now. Error: ``OSError``."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)]


def answers(found: Mapping[str, Iterable[Target]], earlier: Iterable[Answer]) -> list[Answer]:
    """What the names of the allow-list (each entry with its addresses now) lead to, and led to in the last hours: MLflow may have asked
    another DNS server, or at another moment. What is no more in the list goes at once.
    """
    now = {target: entry for entry, targets_of in found.items() if has_names([entry]) for target in targets_of}
    kept = {_comment(entry) for entry in found}
    old = {each.target: each for each in earlier if each.target not in now and each.entry in kept and each.seconds > 0}
    fresh = [Answer(target=one, entry=_comment(now[one]), seconds=ANSWER_SECONDS) for one in sorted(now)]
    return [*fresh, *(old[one] for one in sorted(old))]


def earlier_answers(listed: str) -> list[Answer]:
    """Those of a table that is in force: what ``nft --json list set`` says of its set ``answers``."""
    sets = [each["set"] for each in json.loads(listed)["nftables"] if "set" in each]
    elements = [element["elem"] for one in sets for element in one.get("elem", ())]
    return [
        Answer(target=Target(ipaddress.IPv4Network(address), port), entry=each["comment"], seconds=each["expires"])
        for each in elements
        for address, port in [each["val"]["concat"]]
    ]


def _comment(entry: str) -> str:
    """For nft, which takes 128 characters; a host's name may have more."""
    return entry if len(entry) < _COMMENT else hashlib.sha256(entry.encode()).hexdigest()


def table_name(install: str) -> str:
    """Family and name, as nft's commands have it, of the table for what is routed: all but what stays on one bridge."""
    return f"inet aihub_{install}"


def bridge_table_name(install: str) -> str:
    """The same of the table for what stays on one bridge. The other sees that only where the host has ``bridge-nf-call-iptables`` at 1,
    and so do the rules of Docker itself (``enable_icc``).
    """
    return f"bridge aihub_{install}"


def removal(table: str) -> str:
    """For ``nft -f``: the table is no more, or never was."""
    return f"table {table} {{}}\ndelete table {table}\n"


def bridge_ruleset(install: str, subnets: Sequence[str] = ()) -> str:
    """The bridges' whole table: none passes a frame from one box to another. ``subnets``, both networks', for a kernel that cannot tell
    by which bridge a frame goes: those of IPv4 are told by their addresses, then; a box cannot send from another's.
    """
    table = bridge_table_name(install)
    inside = ", ".join(subnets)
    gate, mlflow = bridge_names(install)
    by_bridge = [f'meta ibrname {{ "{gate}", "{mlflow}" }}']
    matches = [f"ip saddr {{ {inside} }}", f"ip daddr {{ {inside} }}"] if subnets else by_bridge
    drops = "".join(f"        {match} drop\n" for match in matches)
    return f"""{removal(table)}table {table} {{
    chain forward {{
        type filter hook forward priority -200; policy accept;
{drops}    }}
}}
"""


def ruleset(install: str, allowed: Iterable[Target], dns: Sequence[str], answered: Iterable[Answer] = ()) -> str:
    """The whole table of what is routed, for ``nft -f``: one transaction that replaces what was there, so that there is never a moment
    without rules.
    """
    gate, mlflow = bridge_names(install)
    table = table_name(install)
    sets = (
        _set("egress", "ipv4_addr . inet_service", _merged(allowed), flags="interval"),
        _set("answers", "ipv4_addr . inet_service", answered, flags="timeout"),
        _set("resolvers", "ipv4_addr", sorted(set(dns))),
    )
    return f"""{removal(table)}table {table} {{
{"".join(sets)}    chain allowed {{
        ct state established,related accept
        iifname "{mlflow}" ip daddr . tcp dport @egress accept
        iifname "{mlflow}" ip daddr . tcp dport @answers accept
        iifname "{mlflow}" ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport {_DNS} accept
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname != {{ "{gate}", "{mlflow}" }} oifname != {{ "{gate}", "{mlflow}" }} accept
        iifname {{ "{gate}", "{mlflow}" }} oifname {{ "{gate}", "{mlflow}" }} drop
        jump allowed
        oifname "{gate}" iifname != "{mlflow}" ct status dnat accept
        drop
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname != {{ "{gate}", "{mlflow}" }} accept
        jump allowed
        drop
    }}
}}
"""


def _set(name: str, kind: str, elements: Iterable[object], *, flags: str = "") -> str:
    lines = [f"type {kind}"]
    lines += [f"flags {flags}"] if flags else []
    inside = ", ".join(map(str, elements))
    lines += [f"elements = {{ {inside} }}"] if inside else []
    return f"    set {name} {{\n" + "".join(f"        {line}\n" for line in lines) + "    }\n"


def _merged(allowed: Iterable[Target]) -> Iterator[Target]:
    """The same places, none within another: nft refuses a set whose entries overlap."""
    by_port: dict[int, list[ipaddress.IPv4Network]] = {}
    for target in allowed:
        by_port.setdefault(target.port, []).append(target.network)
    for port, found in sorted(by_port.items()):
        yield from (Target(network, port) for network in ipaddress.collapse_addresses(found))


def _is_ipv4(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 4
    except ValueError:
        return False
