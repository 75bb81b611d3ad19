"""Where MLflow may connect to, on a server whose gateway is open: to public addresses, and to the object store.

Members write the endpoints of MLflow's gateway. MLflow looks at the address that an endpoint names, but not at those that come out of a
credential (Google's names where its token is made), a region or a redirect, or are asked by a library of a provider's own. So it is the
connection itself that is looked at, in this process and in those that are forked from it.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from tracking_server.settings import Settings

_REFUSED = "This server connects to public addresses only, and {host} is none: its administrator can allow others (gateway_private)."
_REMEMBERED_SECONDS = 300
# Public by themselves, and another address, which may be none, for who translates them.
_TRANSLATED = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


class AddressError(OSError):
    """A connection to an address that is not public; says so."""


class Store:
    """The object store, wherever it is: the site's choice, or a member's where the service names no store for all. A link-local address, as
    that of a cloud's keys, is never the store's.

    A store's name may stand for many addresses and give another one at each look: what this process was told of it counts for some minutes.
    """

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.endpoint_url or f"https://s3.{settings.region}.amazonaws.com")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._told_at: dict[str, float] = {}

    def is_at(self, host: str, port: int) -> bool:
        if port != self._port or _is_link_local(host):
            return False
        if not self._is_known(host):
            self.note(socket.getaddrinfo(self._host, port, type=socket.SOCK_STREAM))
        return self._is_known(host)

    def is_called(self, name: object) -> bool:
        said = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
        return said.lower() == self._host

    def note(self, found: Iterable[tuple[Any, ...]]) -> None:
        """What the name was said to stand for."""
        self._told_at.update((str(each[4][0]), time.monotonic()) for each in found)

    def _is_known(self, host: str) -> bool:
        return time.monotonic() - self._told_at.get(host, float("-inf")) <= _REMEMBERED_SECONDS


def install(settings: Settings) -> None:
    """Into this process, for good; before it is forked."""
    if settings.allow_gateway:
        _take_no_credential_of_the_hosts()
    if settings.allow_gateway and not settings.gateway_private:
        _look_at_connections(settings)


def _take_no_credential_of_the_hosts() -> None:
    """MLflow takes what is no credential for Google for the name of a file that is one."""
    from mlflow.gateway.providers import vertex_ai  # type: ignore[import-not-found]  # MLflow is in the box's environment only

    def no_file(_name: str) -> None:
        raise ValueError("a credential is given as JSON, never as a file's name")

    vertex_ai.Path = no_file


def _look_at_connections(settings: Settings) -> None:
    store, look_up = Store(settings), socket.getaddrinfo

    def noted(host: Any, *arguments: Any, **named: Any) -> Any:
        found = look_up(host, *arguments, **named)
        if store.is_called(host):
            store.note(found)
        return found

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.connect":
            _check(arguments[1], store)

    socket.getaddrinfo = noted
    sys.addaudithook(look)


def _check(address: object, store: Store) -> None:
    if not isinstance(address, tuple):  # a socket that is a file
        return
    host, port = str(address[0]), int(address[1])
    if not is_public(host) and not store.is_at(host, port):
        raise AddressError(_REFUSED.format(host=host))


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_link_local


def is_public(host: str) -> bool:
    """Whether a connection to it leaves the site. A name is not: all that connect here have looked it up before."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast
