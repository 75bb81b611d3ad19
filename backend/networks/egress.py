"""Which object stores the servers' containers reach: those that the admin's allow-list covers (``backend.networks.layout``)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from backend.errors import ServiceError
from backend.networks import layout
from backend.settings import Settings

_AWS: Final = ".amazonaws.com"
_AWS_PLACE: Final = f"s3.REGION{_AWS}", 443


def check_endpoint(settings: Settings, endpoint_url: str | None, lookup: layout.Lookup | None = None) -> None:
    """Error: ``endpoint_closed`` for a store (None: the site's, else AWS) to which the firewall lets no server connect.

    A name that an address or network of the list may cover is looked up by ``lookup`` alone: without it, it passes. So does one that has
    no address now, which whoever tries the key says better.
    """
    url = endpoint_url or settings.endpoint_url
    place = _AWS_PLACE if url is None else layout.place_of(url)
    if settings.runtime == "docker" and not _is_open(settings, place, lookup):
        raise ServiceError("endpoint_closed", endpoint=url or "AWS", entry=f"{place[0]}:{place[1]}")


def _is_open(settings: Settings, place: tuple[str, int], lookup: layout.Lookup | None) -> bool:
    entries = [entry.lower().rpartition(":") for entry in layout.allow_list(settings)]
    hosts = [host for host, _colon, port in entries if port == str(place[1])]
    if place[0] in hosts:
        return True
    found = [network for network in map(_network, hosts) if network is not None]
    if place == _AWS_PLACE:  # many names, of the region and of the bucket
        return bool(found) or any(host.endswith(_AWS) for host in hosts)
    addresses = _addresses(place, lookup) if found else []
    return addresses is None or (bool(addresses) and all(any(each.subnet_of(network) for network in found) for each in addresses))


def _addresses(place: tuple[str, int], lookup: layout.Lookup | None) -> Sequence[ipaddress.IPv4Network] | None:
    """None: they are not known."""
    literal = _network(place[0])
    if literal is not None:
        return [literal]
    if ":" in place[0]:  # IPv6, which the containers have not
        return []
    try:
        return None if lookup is None else [ipaddress.IPv4Network(address) for address in lookup(*place)]
    except OSError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        return None
